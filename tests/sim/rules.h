/* SPDX-License-Identifier: MIT */
/*
 * rules.h - what has to hold, whatever the disk did. X(NAME, does the library promise it, text).
 *
 * Those marked LIMIT are what nobody can promise who has only the bytes that are left: damage above the mark looks as what a
 * loss of power leaves there. How often that happens is counted and printed at the end, and is no failure.
 */
#ifndef SIM_RULES_H
#define SIM_RULES_H

#define SIM_NOW 1
#define SIM_LIMIT 0

#define SIM_RULES(X)                                                                                             \
    X(OPENS, SIM_NOW, "a queue opens without repair after the loss of power, and after the death of a process")  \
    X(DURABLE, SIM_NOW, "what was acknowledged as durable is there")                                             \
    X(RETURNED, SIM_NOW, "what append returned for survives the death of a process")                             \
    X(BATCH, SIM_NOW, "after the death of a process a batch is there as a whole, or not at all")                 \
    X(CONTENT, SIM_NOW, "every record is what was appended with its seq in this history, byte for byte")         \
    X(SEQS, SIM_NOW, "seqs are dense, and next_seq is the one behind the last")                                  \
    X(BACK, SIM_NOW, "seqs go on where they were, also if all records of the log were deleted or lost")          \
    X(STAYS, SIM_NOW, "what an opening found on disk stays, though it was never acknowledged as durable")        \
    X(SAME, SIM_NOW, "recovery cut off and run again, or run twice, finds the same end")                         \
    X(KEPT, SIM_NOW, "a record that was whole on disk is in the log, in quarantine/, or behind the tail")        \
    X(EPOCHS, SIM_NOW, "no two openings write records of the same epoch, and later ones write higher ones")      \
    X(REMNANTS, SIM_NOW, "what recovery cut off is zero on disk before anything is appended behind it")          \
    X(TOLD, SIM_NOW, "what recovery cuts off is in its report")                                                  \
    X(POSITION, SIM_NOW, "a reader resumes at what it committed, or is told that this is gone")                  \
    X(RETENTION, SIM_NOW, "retention leaves a suffix, and all that a registered reader has not committed past")  \
    X(VERIFY, SIM_NOW, "a queue that was opened and closed verifies")                                            \
    X(UNCHANGED, SIM_NOW, "a refused opening changes nothing")                                                   \
    X(DAMAGE, SIM_NOW, "damage to what the mark on disk covers is reported, and nothing changed or cut")         \
    X(CALLS, SIM_NOW, "an ordinary call succeeds")                                                               \
    X(DAMAGE_ABOVE, SIM_LIMIT,                                                                                   \
      "damage to what was acknowledged as durable is reported though the mark on disk is old")                   \
    X(TEARS, SIM_LIMIT, "a sector that is torn in itself (no disk does that, says docs/FORMAT.md) is no damage") \
    X(MARK, SIM_NOW, "the mark on disk is not more than a segment behind what was acknowledged as durable")      \
    X(CUTS, SIM_NOW, "not more good records are cut off than are left above the mark: then the opening is refused")

enum sim_rule {
#define SIM_RULE_ENUM(name, when, text) SIM_RULE_##name,
    SIM_RULES(SIM_RULE_ENUM)
#undef SIM_RULE_ENUM
        SIM_RULE_COUNT
};

#endif
