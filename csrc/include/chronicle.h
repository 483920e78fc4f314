/* SPDX-License-Identifier: MIT */
/*
 * chronicle.h - a persistent, brokerless message log for one host.
 *
 * This is the only public header of libchron, and its manual.
 *
 * CAVEATS FIRST
 *
 *  - One queue is one directory. Exactly one process at a time writes to it (the kernel's lock on
 *    writer.lock sees to that); any number of processes read from it.
 *  - A handle belongs to one thread at a time. Different handles are independent. A handle opened with
 *    CHRON_CHECKED refuses concurrent use with CHRON_EBUSY; without it, concurrent use is undefined.
 *  - After fork(), every handle answers CHRON_EFORKED in the child. Close it there (that frees memory
 *    and touches nothing of the parent's), then open a new one.
 *  - Segments are memory-mapped. If a file is truncated by somebody else, or the disk under it fails,
 *    the kernel sends SIGBUS. Call chron_guard_install() once to turn that into CHRON_EIO.
 *  - Threads may be cancelled (pthread_cancel) where they wait for somebody else: in chron_reader_wait(), in an append or
 *    chron_writer_wait_room() that waits for room, in an opening that waits for the lock. The handle is then as if the call had
 *    not been made, and can be used or closed. No other function is a cancellation point, however long the disk takes;
 *    chron_bells_wait() is ended with chron_bell_ring().
 *  - Descriptors: a writer keeps up to eight, and one for each sealed segment that no sync has covered yet, of which there
 *    may be 64, or a quarter of what the process may have open (ulimit -n), if that is less. A reader keeps up to four. None
 *    of them is ever 0, 1 or 2.
 *  - "Survives" has two meanings here. A record that an append returned for survives the death of every
 *    process. Only a record at or below chron_writer_durable_seq() survives the loss of power.
 *  - Network file systems are refused (CHRON_ENETFS) unless CHRON_ALLOW_NETFS is given: mapped memory
 *    and kernel locks are not coherent there.
 *
 * CONVENTIONS
 *
 *  - Functions return 0 or more on success and a negative -CHRON_E... code on failure. "Nothing there
 *    yet" is not an error: it is 0. chron_last_error() then tells, for the calling thread, what was
 *    tried, on which file, and which sequence numbers were involved.
 *  - What a function can answer stands behind "Errors:", but for what all share that have errors: EINVAL, for
 *    a NULL where something has to be and for a wrong struct_size; and if they take a handle: EFORKED, and
 *    with CHRON_CHECKED also EBUSY and ECLOSED. "Those of the system" are EIO, EACCESS, ENOMEM, ENOSPC and
 *    ENOTSUP, whichever the failed system call's errno (chron_error.sys_errno) comes to; EIO also when a
 *    file went away under its mapping.
 *  - Sequence numbers (seq) are dense: 0, 1, 2, ... They stay below 2^63. CHRON_SEQ_NONE means "none".
 *  - Timestamps are nanoseconds since 1970-01-01 00:00 UTC, as uint64_t. Timeouts are nanoseconds,
 *    negative for "no limit".
 *  - Strings are UTF-8, NUL-terminated; the library copies what it needs to keep.
 *  - The library keeps no global state but a fork counter (and, once asked for, the SIGBUS guard's
 *    table), prints nothing, never exits, and starts no thread but the keeper, when asked to.
 *
 * STRUCTS THAT GROW
 *
 *  - A struct that begins with `struct_size` may get further fields in later versions, at its end. Whoever
 *    passes one sets struct_size to its sizeof, also if it is to be filled. Of those that are read, 0 is
 *    the default of every field: `chron_writer_options o = {.struct_size = sizeof o};` is complete.
 *  - So a program goes on working with later libraries, without a new compilation: what its struct lacks
 *    counts as 0, or is not filled in. A program that was compiled with a later header than the
 *    library's works as long as it leaves at 0 what the library does not know; else it is told so
 *    (EINVAL). What the library does not know and should fill in is 0.
 *  - In an array that is to be filled, struct_size of the first element is the distance from one to the
 *    next; the library stores it in each one that it fills.
 *  - chron_record and chron_view have no struct_size, because there are arrays of them on hot paths: they
 *    are pinned for ever. chron_error and chron_problem are made by the library and only read by the
 *    program: they may grow at their end, too.
 *
 * A WRITER IN FIVE LINES
 *
 *     chron_writer *w;
 *     if (chron_writer_open("/tmp/q", NULL, &w) < 0)
 *         die(chron_last_error()->text);
 *     chron_writer_append(w, "hello", 5, 0, 0);
 *     chron_writer_close(w);
 *
 * A READER
 *
 *     chron_reader *r;
 *     chron_view v;
 *     int n;
 *     if (chron_reader_open("/tmp/q", NULL, &r) < 0)
 *         die(chron_last_error()->text);
 *     while ((n = chron_reader_next(r, &v)) == 1)
 *         printf("%llu %.*s\n", (unsigned long long)v.seq, (int)v.length, (const char *)v.payload);
 *     chron_reader_close(r);
 */
#ifndef CHRONICLE_H
#define CHRONICLE_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define CHRON_API
#elif defined(__GNUC__)
#define CHRON_API __attribute__((visibility("default")))
#else
#define CHRON_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Error codes. The numbers are pinned for ever. X(NAME, VALUE, TEXT): functions return -CHRON_NAME.
 */
#define CHRON_ERRORS(X)                                                             \
    X(EINVAL, 1, "invalid argument")                                                \
    X(ENOMEM, 2, "out of memory")                                                   \
    X(EIO, 3, "input/output error")                                                 \
    X(ENOSPC, 4, "no space left on the file system")                                \
    X(EACCESS, 5, "permission denied")                                              \
    X(ENOQUEUE, 6, "there is no queue here")                                        \
    X(EWRITER, 7, "another writer is active")                                       \
    X(EREADER, 8, "another reader of this name is active")                          \
    X(EFULL, 9, "the queue is full")                                                \
    X(ETOOBIG, 10, "the payload is larger than a segment holds")                    \
    X(EGONE, 11, "the records asked for have been deleted")                         \
    X(ECORRUPT, 12, "damaged data")                                                 \
    X(EREWRITTEN, 13, "history was rewritten behind this reader")                   \
    X(EFORMAT, 14, "unsupported file format")                                       \
    X(EFORKED, 15, "this handle was opened before a fork, in the parent process")   \
    X(ECLOSED, 16, "this handle is closed")                                         \
    X(ENOTDURABLE, 17, "this file system cannot keep anything over a loss of power")\
    X(EPOISONED, 18, "an earlier sync failed: reopen the writer")                   \
    X(EINTR, 19, "interrupted by a signal")                                         \
    X(EBUSY, 20, "the handle is in use by another thread")                          \
    X(EBUFFER, 21, "the buffer is too small for this payload")                      \
    X(ENETFS, 22, "network file systems are refused")                               \
    X(ERANGE, 23, "no such sequence number yet")                                    \
    X(EREADONLY, 24, "a reader without a name has no stored position")              \
    X(ECLAIM, 25, "a claim is open, or none is")                                    \
    X(ENOTSUP, 26, "not supported on this system")                                  \
    X(EREMOVED, 27, "the queue was removed")                                        \
    X(EUNSYNCED, 28, "appended, but not known to be on disk")                      \
    X(ETURN, 29, "another writer keeps its turn")                                   \
    X(ESTALE, 30, "the job is not this receipt's any more")                         \
    X(EWINDOW, 31, "the group's window is full")                                    \
    X(EHELD, 32, "another process holds what is needed")

/* Values of the error codes, positive. */
enum chron_errcode {
    CHRON_OK = 0,
#define CHRON_ENUM_ITEM(name, value, text) CHRON_##name = value,
    CHRON_ERRORS(CHRON_ENUM_ITEM)
#undef CHRON_ENUM_ITEM
};

/* cdef: begin (build_ffi.py takes everything from here to "cdef: end") */

#define CHRON_VERSION_MAJOR 0
#define CHRON_VERSION_MINOR 1
#define CHRON_VERSION_PATCH 0
#define CHRON_FORMAT_VERSION 1

#define CHRON_SEGMENT_SIZE_DEFAULT 67108864      /* bytes: 64 MiB */
#define CHRON_SEGMENT_SIZE_MIN     65536         /* bytes: 64 KiB; sizes are multiples of this */
#define CHRON_SEGMENT_SIZE_MAX     68719476736   /* bytes: 64 GiB */
#define CHRON_PAYLOAD_MAX          1073741824    /* bytes: 1 GiB, or less if a segment holds less */
#define CHRON_READER_NAME_MAX      64            /* bytes, without the NUL */
#define CHRON_SEQ_NONE             0xFFFFFFFFFFFFFFFF
#define CHRON_NOW                  0xFFFFFFFFFFFFFFFF /* as a timestamp: read the clock */
#define CHRON_TYPE_MAX             0xFFFE        /* type_id 0xFFFF is the library's */
#define CHRON_GROUP_TAKE_MAX       256           /* jobs of one chron_group_take() */
#define CHRON_GROUP_DELIVERIES_MAX 4000
#define CHRON_GROUP_WINDOW_DEFAULT 65536         /* jobs; a power of two from 64 to 16777216 */
#define CHRON_BELLS_MAX            128           /* that one call waits at */
#define CHRON_NOT_READY            (-1000)       /* of chron_writer_try_append() */

typedef struct chron_writer chron_writer;
typedef struct chron_reader chron_reader;
typedef struct chron_merge chron_merge;     /* many queues, read as one */
typedef struct chron_group chron_group;
typedef struct chron_bell chron_bell;       /* what a thread waits at, for an event loop */
typedef struct chron_segment chron_segment; /* a mapped segment that views may outlive their reader with */

/* ------------------------------------------------------------------------------- errors, version */

/* What went wrong last on this thread. Fields that do not apply are 0, CHRON_SEQ_NONE or "". May grow at its end. */
typedef struct chron_error {
    int32_t code;       /* CHRON_E..., positive */
    int32_t sys_errno;  /* errno of the system call that failed, or 0 */
    int64_t pid;        /* EWRITER: the process that has the queue open; 0 unknown */
    uint64_t seq;       /* the sequence number concerned: what was asked for, or what is damaged or was rewritten */
    uint64_t oldest;    /* EGONE: the oldest seq that can still be read */
    uint64_t next_seq;  /* ERANGE: of the next record to be appended; EREWRITTEN: of the first that was undone, if known */
    uint64_t offset;    /* bytes from the start of `file` */
    char file[96];      /* file inside the queue directory */
    char text[512];     /* one sentence that says what was tried and what to do */
    uint64_t appended;  /* EUNSYNCED: how many records of this call are in the log */
} chron_error;

/* The calling thread's last failure. Never NULL; valid until the thread's next failing call. Never fails. */
CHRON_API const chron_error *chron_last_error(void);

/* The short, constant text for a code (either sign). Never NULL. Never fails. */
CHRON_API const char *chron_strerror(int code);

/* "0.1.0": version of the library that is running. Never fails. */
CHRON_API const char *chron_version(void);

/* CRC-32C (Castagnoli, RFC 3720 B.4) of `len` bytes, going on from `crc` (0 to start). Never fails. */
CHRON_API uint32_t chron_crc32c(uint32_t crc, const void *data, size_t len);

/*
 * Which implementation was chosen on this machine: "sse4.2+pclmul", "sse4.2", "armv8+pmull", "armv8", "portable".
 * Never fails.
 */
CHRON_API const char *chron_crc32c_name(void);

/*
 * Turn SIGBUS inside mappings of this library into CHRON_EIO from the operation that met it. Installs
 * a handler that passes every other fault on to the handler that was there before. Idempotent, process
 * wide, thread-safe. Call it before opening handles: mappings made earlier are not covered. Where others install a handler
 * later, it comes in front again with the next mapping (an opening, a new segment), or with another call of this. A thread
 * that makes a mapping has SIGBUS unblocked afterwards: a fault while it is blocked ends the process.
 * Errors: EIO (the handler cannot be installed).
 */
CHRON_API int chron_guard_install(void);

/*
 * 1 if any of these bytes lie in a mapping of this library that has faulted since: what is read there are zeros. `data`
 * NULL: if there is such a mapping anywhere. Asked after a copy out of mapped memory, it tells whether to believe the
 * copy. Never fails.
 */
CHRON_API int chron_guard_faulted(const void *data, size_t length);

/* ---------------------------------------------------------------------------------------- options */

/* Flags for chron_writer_options.flags and chron_reader_options.flags */
#define CHRON_KEEPER       0x01 /* writer: start the keeper thread */
#define CHRON_CHECKED      0x02 /* refuse concurrent use of the handle with CHRON_EBUSY (costs ~6 ns a call) */
#define CHRON_ALLOW_NETFS  0x04 /* do not refuse a network file system */
#define CHRON_REPAIR       0x08 /* writer: accept damage: keep all whole records, give up the others for good, as gaps */
#define CHRON_MUST_EXIST   0x10 /* writer: do not create the queue */
#define CHRON_DURABLE_ONLY 0x20 /* reader: see only records at or below durable_seq */
#define CHRON_TORN_CUT     0x40 /* writer: at a hole that a loss of power may have left, set aside what is behind it */
#define CHRON_TORN_SKIP    0x80 /* writer: the same, but keep what is behind it, and accept the gap */
#define CHRON_REUSE       0x200 /* writer: the file of a segment that retention deletes becomes a next one (below) */
#define CHRON_SHARED      0x800 /* writer: one of several, in this process and others, that take turns */
#define CHRON_DRY_RUN     0x100 /* chron_queue_repair(): change nothing, only tell */

/*
 * CHRON_REUSE: where retention deletes a segment, and nobody has its file open or mapped or has another name for it, the file
 * becomes a next segment: that saves unlinking it, and fresh pages. One that somebody has open, a view of it for instance, is
 * unlinked as ever. Only on ext4, XFS and tmpfs of Linux, where segments have 1 MiB or more, one fills within 30 s (any time, on
 * tmpfs), and the files belong to the writer's user (or it has CAP_LEASE); elsewhere the flag changes nothing.
 * chron_writer_stats.reused_segments counts. Until it is used the file, one at most, is the prepared next segment: it takes no
 * room besides.
 *
 * The queue gets a mark with it, for good: libraries that know nothing of reuse refuse it (EFORMAT), since their readers would see
 * bytes change. A queue that has none gets it at an opening at which no reader has the queue open; before that it is not reused.
 */

/* chron_writer_options.durability: when are records put on disk? */
#define CHRON_DURABILITY_NONE     0 /* by chron_writer_sync() only: survives process death, not power loss */
#define CHRON_DURABILITY_INTERVAL 1 /* every durability_n milliseconds, by the keeper (which is required) */
#define CHRON_DURABILITY_BATCH    2 /* inside append, after every durability_n records */
#define CHRON_DURABILITY_ALWAYS   3 /* inside every append, before it returns */

/* chron_writer_options.clock */
#define CHRON_CLOCK_REALTIME 0 /* CLOCK_REALTIME: about 25 ns a reading */
#define CHRON_CLOCK_COARSE   1 /* the kernel tick's time: 1 to 4 ms resolution, about 2 ns a reading */
/*
 * CLOCK_REALTIME carried on by the processor's counter, where the kernel itself takes its time from that (x86-64 Linux, clock
 * source "tsc"); elsewhere it is CHRON_CLOCK_REALTIME. Half its cost a reading. Within 5 us of CLOCK_REALTIME, but that a
 * clock that is set is noticed 1 ms later at most.
 */
#define CHRON_CLOCK_COUNTER 2

/*
 * Retention. cleanup deletes sealed segments only, oldest first. Without limits it deletes those that
 * every registered (named) reader has committed past; with no registered reader, none. A limit deletes
 * in spite of the readers; one who is left behind meets CHRON_EGONE, or what its on_gap says.
 * 0 switches a limit off.
 *
 * Ages are counted by the time that has passed, not by the wall clock, for all that was done since the machine was started:
 * a step of that clock deletes nothing, and keeps nothing. What is older has the wall clock's time only; a time
 * in the future counts as now.
 */
typedef struct chron_retention {
    uint32_t struct_size;    /* sizeof(chron_retention) */
    uint32_t automatic;      /* 1: also run by the keeper (or, without one, at each roll) */
    uint64_t max_bytes;      /* keep at most this much in segment files and in quarantine/ */
    uint64_t max_segments;   /* keep at most this many segment files, the active one included */
    uint64_t max_age_ms;     /* delete segments sealed longer ago than this */
    uint64_t reader_ttl_ms;  /* ignore readers that are not running and committed longer ago than this (or, if that cannot be
                                read, whose file was last changed longer ago) */
    uint64_t max_reader_lag; /* ignore readers that are more than this many records behind */
    uint64_t quarantine_max_bytes;  /* keep at most this much in quarantine/, and always what the newest opening has put there;
                                       0: a quarter of the limits above, and of those of back-pressure, if there are any */
    uint64_t quarantine_max_age_ms; /* delete what was put there longer ago than this */
    uint64_t keep_snapshot;  /* 1: keep the newest snapshot's segment, and all behind it; and from one that cannot be read */
} chron_retention;

typedef struct chron_writer_options {
    uint32_t struct_size;    /* sizeof(chron_writer_options) */
    uint32_t flags;          /* CHRON_KEEPER, ... */
    uint64_t segment_size;   /* bytes, multiple of 64 KiB, 0 = 64 MiB; used when the queue is created, ignored later */
    uint32_t durability;     /* CHRON_DURABILITY_... */
    uint32_t durability_n;   /* milliseconds (INTERVAL, 0 = 100) or records (BATCH, 0 = 1000) */
    uint32_t clock;          /* CHRON_CLOCK_... */
    uint32_t mode;           /* permission bits for new files, 0 = 0600; directories get x where r is */
    uint64_t max_bytes;      /* back-pressure: never let segment files, and quarantine/, grow beyond this; 0 = off */
    uint64_t max_segments;   /* the same, in segments; at least 2 */
    const chron_retention *retention; /* read only during the call; NULL: no limits */
    int64_t block_ns;        /* how long an append waits for room before CHRON_EFULL; 0 = not at all */
    int64_t lock_wait_ns;    /* how long an opening waits for another writer to close; 0 = not at all, negative: no limit */
    uint64_t first_seq;      /* of a queue that is created now: seq of its first record, below 2^63; ignored later */
    int64_t turn_timeout_ns; /* CHRON_SHARED: how long to wait for another one who keeps its turn, and lives; 0 = 5 s */
} chron_writer_options;

/* chron_reader_options.start */
#define CHRON_START_RESUME   0 /* the committed position, or the oldest record if there is none */
#define CHRON_START_EARLIEST 1 /* the oldest record there is */
#define CHRON_START_LATEST   2 /* behind the newest record: only what comes from now on */
#define CHRON_START_SEQ      3 /* start_value is a seq */
#define CHRON_START_TIME     4 /* start_value is a timestamp: the first record not older than it */
#define CHRON_START_SNAPSHOT 5 /* the newest record that chron_writer_snapshot() appended (of `types`, if there are some); the
                                  oldest record if there is none */

/* chron_reader_options.on_gap: the record wanted next has been deleted by retention */
#define CHRON_GAP_ERROR  0 /* CHRON_EGONE; chron_error.oldest says where reading could go on */
#define CHRON_GAP_OLDEST 1 /* go on with the oldest record there is; stats count what was skipped */
#define CHRON_GAP_LATEST 2 /* go on behind the newest record; stats count what was skipped */

/* chron_reader_options.wait */
#define CHRON_WAIT_HYBRID 0 /* spin for a few microseconds, then sleep until the writer rings */
#define CHRON_WAIT_SPIN   1 /* spin: lowest latency, uses a whole processor (but lets others have it who wait) */
#define CHRON_WAIT_SLEEP  2 /* sleep until the writer rings: least work */

typedef struct chron_reader_options {
    uint32_t struct_size;  /* sizeof(chron_reader_options) */
    uint32_t flags;        /* CHRON_CHECKED, CHRON_ALLOW_NETFS, CHRON_DURABLE_ONLY */
    const char *name;      /* [A-Za-z0-9._-]{1,64}, not starting with a dot; NULL: read-only, unregistered */
    uint32_t start;        /* CHRON_START_... */
    uint32_t on_gap;       /* CHRON_GAP_... */
    uint32_t wait;         /* CHRON_WAIT_... */
    uint32_t mode;         /* permission bits for a new position file; 0: written by its owner, read by all who read the queue */
    uint64_t start_value;  /* for CHRON_START_SEQ and CHRON_START_TIME */
    const uint16_t *types; /* only records of these types: see "FILTERS"; read only during the call */
    uint64_t type_count;   /* how many those are; 0: all records */
} chron_reader_options;

/* ----------------------------------------------------------------------------------------- writer */

/* What recovery found when the writer opened. All 0 after a clean shutdown. */
typedef struct chron_recovery {
    uint32_t struct_size;     /* sizeof(chron_recovery) */
    uint32_t clean;           /* 1: the last writer closed the queue properly */
    uint32_t quarantined;     /* 1: what was cut off is in quarantine/; 0 with cut_bytes > 0: no room for a copy */
    uint32_t reserved;        /* 0 */
    uint64_t next_seq;        /* first seq that this writer will assign */
    uint64_t epoch;           /* how often the queue has been opened for writing */
    uint64_t scanned_records; /* records whose CRC was checked */
    uint64_t scanned_bytes;
    uint64_t cut_bytes;       /* bytes cut off behind the last good record, and kept in quarantine/ */
    uint64_t cut_records;     /* whole records among them that could still be recognised */
    uint64_t cut_segments;    /* later segment files moved to quarantine/ as a whole */
    uint64_t lost_records;    /* that the last writer had when it closed properly, and that are not there */
    uint64_t repaired_rolls;  /* rolls that a crash had left half done, seals that were damaged */
    uint64_t repaired_headers;
    uint64_t unfinished_bytes; /* of an append that a dying process had not published: erased */
    uint64_t gaps;            /* accepted as lost now (CHRON_REPAIR, CHRON_TORN_SKIP): how many, */
    uint64_t gap_records;     /* and how many seqs. Readers meet them as what retention deleted */
    uint64_t copied;          /* 1: the queue is a copy, or its disk another one: nothing in it counts as durable yet */
    uint64_t repaired_files;  /* segments that were cut short, or not readable in part, and got a new file */
} chron_recovery;

typedef struct chron_writer_stats {
    uint32_t struct_size;      /* sizeof(chron_writer_stats) */
    uint32_t keeper_running;   /* 1 or 0 */
    uint64_t records;          /* appended through this handle */
    uint64_t payload_bytes;
    uint64_t rolls;
    uint64_t rolls_unprepared; /* rolls at which the next segment was not ready and was made on the spot */
    uint64_t full_waits;       /* appends that met back-pressure */
    uint64_t syncs;            /* completed syncs */
    uint64_t wakes;            /* system calls made to wake sleeping readers */
    uint64_t touched_bytes;    /* pages prepared ahead, by the keeper or inline */
    uint64_t deleted_segments;
    uint64_t keeper_errors;    /* background work that failed, and is tried again */
    int64_t keeper_last_error; /* the last of them, a CHRON_E... code, or 0 */
    uint64_t reused_segments;  /* rolls to the file of a segment that was deleted (CHRON_REUSE) */
} chron_writer_stats;

/* One record of a batch. Pinned for ever. */
typedef struct chron_record {
    const void *payload;
    size_t length;         /* bytes */
    uint64_t timestamp_ns; /* or CHRON_NOW: all such records of a batch share one reading of the clock */
    uint16_t type_id;      /* 0 to CHRON_TYPE_MAX */
    uint8_t flags;         /* the user's */
} chron_record;

/*
 * Open the queue at `path` for writing; create it if it is not there (the directory's parent must
 * exist), recover it if the last writer died. `options` may be NULL for the defaults: no keeper, 64 MiB
 * segments, durability none. On success *out is the handle; on failure it is NULL.
 *
 * What is not as it should be is judged by evidence (docs/FORMAT.md, "Opening"), before a byte is changed. In the same boot
 * and place as the last writer everything that it published must be there: the last segment is checked, in a millisecond or
 * so, and what does not check out is damage (ECORRUPT). After another boot, or of a copy, every record above the durable
 * mark is checked; a torn end is cut off, kept in quarantine/, and told in chron_recovery. Damage, and a hole with more
 * good records behind it than in front, are left to the caller: CHRON_REPAIR, CHRON_TORN_CUT, CHRON_TORN_SKIP.
 *
 * With CHRON_SHARED one of several writers, up to 108 handles in any processes, that take turns: one order of all records, each
 * writer's in its own; batches are whole. Who dies in its turn stops nobody: the kernel tells the others, and the next one
 * puts right what it left. They and an exclusive writer keep each other out (EWRITER). max_bytes and max_segments are
 * the same for all. A failed sync poisons all of them. docs/GUIDE.md says what is not promised.
 *
 * Errors: EINVAL (options that make no sense; or the directory is no queue, and not empty), ENOQUEUE (with
 * CHRON_MUST_EXIST; or the path is no directory, or lies in none), EWRITER, EINTR (while it waited for another writer),
 * ECORRUPT (see above; or queue.meta is damaged, or lost), EFORMAT, ENOTDURABLE, ENETFS, EREMOVED (again and again while it
 * was being made; or with CHRON_SHARED, the queue was removed), those of the system. With CHRON_SHARED also EPOISONED (a dead
 * one's turn could not be put right), EINVAL (the others have other limits), ENOTSUP (no locks that several writers can
 * share: an overlay, or not Linux).
 */
CHRON_API int chron_writer_open(const char *path, const chron_writer_options *options, chron_writer **out);

/*
 * Close and free the handle, in every case. Aborts an open claim, stops the keeper, and (unless durability is NONE)
 * syncs; the returned status is that of the sync. NULL is allowed, and so are a shut handle and, in a child, a forked
 * one.
 * Errors: EBUSY (with CHRON_CHECKED: another thread is inside, and nothing was closed or freed). With any other it is closed,
 * but not all that was appended is known to be on disk: EPOISONED (a sync in the background had failed, and nobody has
 * been told yet), and what chron_writer_sync() has but EIO's poisoning: EREMOVED, ECORRUPT, EFULL, EINTR, EFORMAT, ETURN,
 * those of the system.
 */
CHRON_API int chron_writer_close(chron_writer *w);

/*
 * The same, but the handle's memory stays, until chron_writer_close() frees it: for language bindings, where
 * another thread may be about to use the handle. With CHRON_CHECKED every later call answers ECLOSED.
 * Errors: as chron_writer_close().
 */
CHRON_API int chron_writer_shut(chron_writer *w);

/*
 * Append one record, stamped with the writer's clock. Returns its seq. When it returns, the record survives the death
 * of this process and readers can see it. `data` may be NULL if `length` is 0. No system call, no allocation, except
 * at the roll to a new segment, in a sync that the durability asks for, and to wake a reader that sleeps.
 * An error means that nothing was appended, but for EUNSYNCED: the record is in the log, and not known to be on disk.
 * EIO is also the answer to data in a mapping of this library whose file went away: what can be read there are zeros.
 * Errors: ETOOBIG, EINVAL (type_id), ECLAIM (one is open), EUNSYNCED (the sync that the durability asks for has failed: do
 * not append it again), EPOISONED (the handle is dead, because a sync failed or the segment went away under its mapping:
 * close, and open again), those of the system (when a new segment is made; ENOSPC: try again when there is room), EREMOVED
 * (the queue was removed, which is seen at a roll); with back-pressure EFULL, EINTR (a signal came while it waited for
 * room), ECORRUPT and EFORMAT as chron_writer_cleanup(). Of a writer that takes turns also ETURN (another one, chron_error.pid,
 * has kept its turn for turn_timeout_ns, and lives: nothing was appended), EINTR while it waits for one, EPOISONED
 * when a sync of any of them has failed, and ECORRUPT (their words in queue.meta are damaged).
 */
CHRON_API int64_t chron_writer_append(chron_writer *w, const void *data, size_t length,
                                      uint16_t type_id, uint8_t flags);

/*
 * The same, with a given timestamp (CHRON_NOW reads the clock). Timestamps may go back.
 * Errors: as chron_writer_append().
 */
CHRON_API int64_t chron_writer_append_at(chron_writer *w, const void *data, size_t length,
                                         uint16_t type_id, uint8_t flags, uint64_t timestamp_ns);

/*
 * The same, but only if it takes no more than copying. CHRON_NOT_READY, which is no error and leaves no detail, when it
 * would take more (a roll, pages to prepare, a sync) or when the record is refused: then nothing was appended, and
 * chron_writer_append_at() is the call to make next. For callers who hold a lock that others wait for, such as a
 * language's interpreter lock. The one system call that it may make wakes sleeping readers.
 * Errors: EPOISONED (the segment went away under its mapping: the handle can only be closed), EIO (`data` did).
 */
CHRON_API int64_t chron_writer_try_append(chron_writer *w, const void *data, size_t length,
                                          uint16_t type_id, uint8_t flags, uint64_t timestamp_ns);

/*
 * Append `count` records so that readers, and recovery after a crash, see either all or none. Returns the first seq;
 * the others follow densely. The whole batch must fit one segment; it may leave the rest of the current segment
 * unused. count = 0 returns the next seq.
 * Errors: as chron_writer_append(), ETOOBIG also for the batch, EINVAL also if it was changed while it was read.
 */
CHRON_API int64_t chron_writer_append_batch(chron_writer *w, const chron_record *records, size_t count);

/*
 * Many payloads in one buffer, with what belongs to them in columns. Payload i is bytes[offset i] up to
 * bytes[offset i + 1] (the layout of Arrow's Binary and LargeBinary arrays), or, without offsets, row i of
 * `row_bytes` each. A column that is NULL has the same value for all.
 */
typedef struct chron_source {
    uint32_t struct_size;         /* sizeof(chron_source) */
    uint32_t offset_size;         /* 4 or 8: bytes of one offset, native order, unsigned */
    const void *bytes;
    uint64_t bytes_size;          /* of `bytes`: no payload may reach beyond it */
    const void *offsets;          /* count + 1 of them, ascending, aligned; NULL: rows */
    uint32_t row_bytes;           /* without offsets: length of each payload */
    uint16_t type_id;             /* without type_ids */
    uint8_t flag;                 /* without flags */
    uint8_t timestamps_signed;    /* 1: they are int64_t, and a negative one is refused (EINVAL) */
    const uint64_t *timestamps;   /* count of them, or NULL; CHRON_NOW among them reads the clock */
    const uint16_t *type_ids;     /* the same */
    const uint8_t *flags;         /* the same */
    uint64_t timestamp_ns;        /* without timestamps (0 is 1970); CHRON_NOW: one reading of the clock a call */
} chron_source;

/*
 * Append records [from, to) of the source; they become visible one by one. Returns how many were appended; fewer
 * than to - from if an error came up behind the first: the call for the rest then returns that error. The source
 * and its columns are read only during the call.
 * Errors: as chron_writer_append(), EINVAL also for what the source says (nothing was appended then).
 */
CHRON_API int64_t chron_writer_append_source(chron_writer *w, const chron_source *source, size_t from, size_t to);

/*
 * The same with all of them or none, as chron_writer_append_batch(): returns the first seq.
 * Errors: as chron_writer_append_source(), and as chron_writer_append_batch().
 */
CHRON_API int64_t chron_writer_append_source_whole(chron_writer *w, const chron_source *source, size_t from, size_t to);

/*
 * Append a record as chron_writer_append_at() does, and mark it as a snapshot: a state from which reading may begin
 * (CHRON_START_SNAPSHOT), so that who comes late need not read what led to it. What it holds is between writer and readers.
 * Errors: as chron_writer_append().
 */
CHRON_API int64_t chron_writer_snapshot(chron_writer *w, const void *data, size_t length, uint16_t type_id, uint8_t flags,
                                        uint64_t timestamp_ns);

/*
 * Claim room for a payload of up to `length` bytes and get a pointer into the mapped segment, to write
 * it in place: 32-byte aligned, zeroed, valid until publish or abort. One claim at a time; until it
 * ends, appends answer ECLAIM. Nobody sees anything before publish.
 * Errors: ETOOBIG, EINVAL, ECLAIM, EPOISONED, those of the system, EREMOVED, EFULL, EINTR, ECORRUPT and EFORMAT: with the
 * meanings that they have for chron_writer_append().
 */
CHRON_API int chron_writer_claim(chron_writer *w, size_t length, void **payload);

/*
 * Publish the first `length` bytes (not more than claimed) as a record. Returns its seq.
 * Errors: ECLAIM (none is open), EINVAL (more than claimed, or type_id), ETOOBIG (more than ever could be),
 * EUNSYNCED and EPOISONED as chron_writer_append(). Of a writer that takes turns, which gets its place only now, as for
 * an append also ETURN, EREMOVED, EFULL, EINTR, ECORRUPT, EFORMAT and those of the system: the claim stays open then.
 */
CHRON_API int64_t chron_writer_publish(chron_writer *w, size_t length, uint16_t type_id, uint8_t flags,
                                       uint64_t timestamp_ns);

/* Give the claim back. The log is as if it had never been. Errors: ECLAIM (none is open). */
CHRON_API int chron_writer_abort(chron_writer *w);

/*
 * Put everything appended so far on disk, and advance durable_seq to it. Blocks for the disk. What was there above the
 * mark before this writer came is proven once, by reading the device.
 * Errors: EIO (a sync failed, whatever the system said: the handle is poisoned, for a later one could answer success for
 * data that is gone), EPOISONED (an earlier one failed), ENOTDURABLE, EREMOVED (the queue was removed), ECORRUPT (an older
 * segment is cut short). Others pass when their cause does, such as EACCESS, and those of the system; and where the device
 * has lost a part of the current segment, so that it is left and that part is written anew, EFULL, EINTR and EFORMAT as an
 * append at a roll. With CHRON_SHARED ETURN (the syncer of them is stopped), EINTR while it waits for that one.
 */
CHRON_API int chron_writer_sync(chron_writer *w);

/*
 * Ask the keeper to put everything up to `seq` on disk, and go on. 1: it is already; 0: asked for. The writer's bell
 * (chron_writer_bell) rings when a sync has ended: then ask again. Requests that come during a sync are
 * served together by the next one.
 * Errors: ERANGE (no such seq yet), EINVAL (no keeper was asked for), EPOISONED (a sync failed), ENOTDURABLE, those of the
 * system (no thread can be had for it); EREMOVED, ECORRUPT, EFULL, EINTR, EFORMAT and those of the system as
 * chron_writer_sync(), where the current segment has to be left.
 */
CHRON_API int chron_writer_sync_request(chron_writer *w, uint64_t seq);

/* The longest payload that an append takes: what a segment of this queue holds, bytes. Never fails. */
CHRON_API uint64_t chron_writer_payload_max(const chron_writer *w);

/* The seq that the next append will return. Never fails. */
CHRON_API uint64_t chron_writer_next_seq(const chron_writer *w);

/* The last seq that survives a loss of power; CHRON_SEQ_NONE if there is none. Never fails. */
CHRON_API uint64_t chron_writer_durable_seq(const chron_writer *w);

/* What the writer's clock says: the timestamp that CHRON_NOW stands for. Never fails. */
CHRON_API uint64_t chron_writer_now(const chron_writer *w);

/*
 * Wait until back-pressure would let a new segment be made, or `timeout_ns` has passed. Returns 1 if
 * there is room, 0 if not.
 * Errors: EINTR (a signal came), and as chron_writer_cleanup(), which it does.
 */
CHRON_API int chron_writer_wait_room(chron_writer *w, int64_t timeout_ns);

/* Fill *out with the writer's counters. Errors: none of its own. */
CHRON_API int chron_writer_stats_get(const chron_writer *w, chron_writer_stats *out);

/* Fill *out with what opening this writer found. Errors: none of its own. */
CHRON_API int chron_writer_recovery_get(const chron_writer *w, chron_recovery *out);

/*
 * The keeper: two background threads, one that touches pages ahead of the writer, prepares the next segment and cleans up
 * (retention.automatic), and one that syncs (DURABILITY_INTERVAL). They take no part in correctness. An opening with
 * CHRON_KEEPER for which no thread can be had goes on without (chron_writer_stats.keeper_errors), and tries again at each roll;
 * but DURABILITY_INTERVAL needs it. 0 also if it runs already.
 * Errors: those of the system (no thread could be had).
 */
CHRON_API int chron_writer_keeper_start(chron_writer *w);

/* Stop it, and wait until the thread has ended. Errors: EINVAL (durability INTERVAL needs it). */
CHRON_API int chron_writer_keeper_stop(chron_writer *w);

/* --------------------------------------------------------------------------------------- retention */

/* chron_segment_fate.reason: why a segment is kept, or was deleted */
#define CHRON_KEPT_ACTIVE     0 /* the writer appends to it, or it is not sealed */
#define CHRON_KEPT_READER     1 /* a registered reader has not committed past it: `reader` */
#define CHRON_KEPT_NO_READERS 2 /* no reader is registered, and no limit asks for its deletion */
#define CHRON_KEPT_EARLIER    3 /* an older segment is kept; deletion goes oldest first */
#define CHRON_KEPT_DAMAGED    4 /* a reader's position cannot be read: `reader`, `sys_errno` */
#define CHRON_GONE_CONSUMED   5 /* every registered reader has committed past it */
#define CHRON_GONE_BYTES      6 /* limit max_bytes */
#define CHRON_GONE_SEGMENTS   7 /* limit max_segments */
#define CHRON_GONE_AGE        8 /* limit max_age_ms */
#define CHRON_KEPT_SNAPSHOT   9 /* the newest snapshot lies in it, or in an older one: keep_snapshot */

typedef struct chron_segment_fate {
    uint32_t struct_size;  /* sizeof(chron_segment_fate); in an array: of the first one */
    uint32_t reason;       /* CHRON_KEPT_... or CHRON_GONE_... */
    uint64_t base_seq;     /* first seq of the segment */
    uint64_t next_seq;     /* first seq behind it */
    uint64_t bytes;        /* size of the file */
    char reader[72];       /* the reader that holds it, or "" */
    uint64_t age_ms;       /* since it was sealed, as max_age_ms counts it; 0: it is not sealed */
    int64_t clock_ms;      /* how much more that would be by the wall clock: more than a second or so if it was set since */
    int32_t sys_errno;     /* CHRON_KEPT_DAMAGED: what opening or reading its position answered; 0: its content is damaged */
    uint32_t reserved;     /* 0 */
} chron_segment_fate;

typedef struct chron_cleanup {
    uint32_t struct_size;      /* sizeof(chron_cleanup) */
    uint32_t reserved;         /* 0 */
    uint64_t segments;         /* looked at: fates there would be for all of them */
    uint64_t deleted_segments; /* (or that would be deleted, in a dry run) */
    uint64_t deleted_bytes;
    uint64_t oldest_seq;       /* oldest seq there is afterwards */
    uint64_t readers;          /* registered readers */
    uint64_t readers_ignored;  /* passed over because of reader_ttl_ms or max_reader_lag */
    uint64_t readers_behind;   /* readers that lost records they had not committed past */
    uint64_t quarantine_files; /* in quarantine/ afterwards */
    uint64_t quarantine_bytes; /* on the disk */
    uint64_t quarantine_deleted_files; /* (or that would be deleted) */
    uint64_t quarantine_deleted_bytes;
} chron_cleanup;

/*
 * Apply the writer's retention now. Up to `capacity` fates, oldest first, are stored in `fates`. Both may be NULL; without fates it
 * costs the same however many segments stay.
 * After an error they tell how far it came.
 * Errors: EFORMAT (of the newest segment), those of the system.
 */
CHRON_API int chron_writer_cleanup(chron_writer *w, chron_cleanup *out, chron_segment_fate *fates,
                                   size_t capacity);

/*
 * The same plan for a queue that may be in use, deleting nothing. `retention` NULL: no limits.
 * Errors: ENOQUEUE, ECORRUPT and EFORMAT (queue.meta and its substitutes, or the newest segment, cannot be read), those
 * of the system.
 */
CHRON_API int chron_queue_cleanup_plan(const char *path, const chron_retention *retention,
                                       chron_cleanup *out, chron_segment_fate *fates, size_t capacity);

/* ----------------------------------------------------------------------------------------- reader */

/* One record. `payload` points into the mapped segment, or into the caller's buffer (next_copy). Pinned for ever. */
typedef struct chron_view {
    uint64_t seq;
    uint64_t timestamp_ns;
    const void *payload;
    uint32_t length;  /* bytes */
    uint16_t type_id;
    uint8_t flags;    /* the user's */
} chron_view;

typedef struct chron_reader_stats {
    uint32_t struct_size;   /* sizeof(chron_reader_stats) */
    uint32_t reserved;      /* 0 */
    uint64_t records;       /* returned through this handle */
    uint64_t payload_bytes;
    uint64_t skipped;       /* records passed over by on_gap, or by skip_damaged */
    uint64_t gaps;          /* how often that happened */
    uint64_t rolls;         /* segments entered */
    uint64_t sleeps;        /* waits that went to sleep */
    uint64_t filtered;      /* records passed over because they are of other types, */
    uint64_t unread;        /* and how many of them without being looked at: in blocks that have none of these types */
} chron_reader_stats;

/*
 * FILTERS
 *
 * A reader with `types` is given records of these types only: by next() and its like, previous(), peek_columns(). All else
 * is as for any reader: seqs are those of the log, with holes; its position moves over what it is not given, up to the
 * next record that it wants, when it looks for that; moving, committing, gaps and lag know nothing of types.
 * chron_reader_advance() counts what peek found.
 *
 * Blocks of 64 KiB in which no record of these types begins are not read, in sealed segments: a summary of each segment's types
 * is kept in types/ (docs/FORMAT.md). Where it is missing, or is not that of the segment as it stands, a reader that comes
 * to the segment's beginning reads all of it, and keeps a new one if the files are its user's. So it may be deleted at any
 * time, and a damaged or foreign one changes no answer. Damage in a block that is not read is not met.
 *
 * Looking for a record may mean to read much. chron_reader_sift() does it in pieces.
 */

/*
 * Open the queue at `path` for reading. `options` may be NULL: no name, from the oldest record. A named
 * reader is registered: it has a stored position (readers/<name>.pos), retention waits for it, and a
 * second one of the same name is refused with EREADER. Without a name nothing is written anywhere, so
 * it works on a read-only file system and without write permission. A queue that has lost queue.meta can be read all the
 * same; only what is durable is not known then.
 * Errors: EINVAL (options that make no sense), ENOQUEUE, EREADER, EGONE (start is deleted, and on_gap CHRON_GAP_ERROR),
 * ERANGE (start lies ahead), EREWRITTEN (the committed position belongs to a history that a power cut undid: open
 * with another start), ECORRUPT (of the stored position: open with another start; of queue.meta and its substitutes, or
 * CHRON_DURABLE_ONLY without queue.meta), EFORMAT, EREMOVED (just now), ENETFS, those of the system. Damage in the log keeps
 * nobody out.
 */
CHRON_API int chron_reader_open(const char *path, const chron_reader_options *options, chron_reader **out);

/*
 * Close and free. Does not commit. NULL is allowed, and so are a shut handle and, in a child, a forked one.
 * Errors: EBUSY (with CHRON_CHECKED: another thread is inside, and nothing was closed or freed).
 */
CHRON_API int chron_reader_close(chron_reader *r);

/*
 * The same, but the handle's memory stays until chron_reader_close(): see chron_writer_shut().
 * Errors: as chron_reader_close().
 */
CHRON_API int chron_reader_shut(chron_reader *r);

/*
 * The record at the position, which moves on by one. 1: *out is filled; 0: there is none yet. The CRC
 * was checked. out->payload points into the mapping and is valid until the next call that moves this
 * reader or closes it. Never blocks; no system call while records come. An error leaves the position where it is.
 * Where nothing has come for a while it looks whether the queue's files are still those that it maps: it goes over to copies
 * of them (an overlay file system makes some), and says EREMOVED if nothing more can come.
 * Errors: EGONE (it was deleted, and on_gap is CHRON_GAP_ERROR), ECORRUPT (see chron_reader_skip_damaged), EREWRITTEN (what
 * this reader has read was cut off by a recovery: seek to where to go on), EFORMAT (the log goes on in a later
 * format), EREMOVED (the queue was removed, or another one took its place), those of the system.
 */
CHRON_API int chron_reader_next(chron_reader *r, chron_view *out);

/*
 * The same, with the payload copied to `buffer`, and the CRC checked over the copy: what it holds
 * cannot change afterwards.
 * Errors: EBUFFER (it needs more than `capacity`: out->length says how much), and as chron_reader_next().
 */
CHRON_API int chron_reader_next_copy(chron_reader *r, void *buffer, size_t capacity, chron_view *out);

/*
 * Up to `count` records in one call; returns how many. They all lie in one segment, so fewer than
 * `count` does not mean there are no more: only 0 does. Views are valid as with chron_reader_next().
 * A damaged record ends the batch before it, and is reported by the call that meets it first.
 * Errors: as chron_reader_next().
 */
CHRON_API int64_t chron_reader_next_batch(chron_reader *r, chron_view *out, size_t count);

/*
 * Where chron_reader_peek_columns() puts what it finds: each pointer leads to room for `count` elements, or is NULL
 * if that column is not wanted. Offsets are those of payloads, in bytes from the start of the segment; or, if `copy` is
 * not NULL, from there: then payloads are copied to it, one behind the other, and the CRCs are checked over the copies.
 */
typedef struct chron_columns {
    uint32_t struct_size;   /* in: sizeof(chron_columns) */
    uint32_t reserved;      /* in: 0 */
    uint64_t *seq;
    uint64_t *timestamp_ns;
    uint64_t *offset;
    uint32_t *length;
    uint16_t *type_id;
    uint8_t *flags;
    void *copy;             /* in: room for bytes_max bytes, or NULL */
    uint64_t bytes_max;     /* in: stop before the payloads are more than this together; without `copy` 0 = no limit */
    uint32_t length_min;    /* out: shortest and longest payload found */
    uint32_t length_max;
    uint64_t payload_bytes; /* out: of all payloads found */
} chron_columns;

/*
 * Up to `count` records from the position on, their CRCs checked, as columns; returns how many. The position stays:
 * chron_reader_advance() moves it. As with next_batch they lie in one segment. If *segment is not NULL on return, it
 * is the caller's reference to that segment: see chron_segment_release(). `segment` may be NULL.
 * Errors: EBUFFER (not even the first payload is within bytes_max: columns->length_max says how much it needs), and
 * as chron_reader_next().
 */
CHRON_API int64_t chron_reader_peek_columns(chron_reader *r, chron_columns *columns, size_t count,
                                            chron_segment **segment);

/*
 * Move the position over `count` of the records that the last peek found (and that were not moved over yet).
 * Errors: EINVAL (so many are not left, or something else has moved this reader in between), ECORRUPT and EIO (they
 * are not there any more).
 */
CHRON_API int chron_reader_advance(chron_reader *r, size_t count);

/*
 * A segment's mapping stays as long as somebody holds a reference: after the reader has moved on or closed, and after
 * retention has deleted the file. These may be called by any thread, and in a forked child.
 */

/* Where the mapping begins; NULL for NULL. Never fails. */
CHRON_API const void *chron_segment_bytes(const chron_segment *s);
/* How many bytes it has; 0 for NULL. Never fails. */
CHRON_API uint64_t chron_segment_size(const chron_segment *s);
/*
 * 1 if the file went away under the mapping (it was truncated, or the disk failed): what is read there are zeros.
 * Never fails.
 */
CHRON_API int chron_segment_faulted(const chron_segment *s);
/* Give the reference back. NULL is allowed. Never fails. */
CHRON_API void chron_segment_release(chron_segment *s);

/*
 * Describe payloads of a segment as `count` string views of 16 bytes each, as in Arrow's BinaryView layout: length
 * and, up to 12 bytes, the bytes; else length, first four bytes, buffer index, offset in that buffer. Buffer i begins
 * i GiB behind offset `from` of the segment, and goes on to the end: payloads begin in its first GiB, and may reach
 * beyond. Offsets and lengths are those that peek found, and no offset is below `from`. Never fails.
 */
CHRON_API void chron_segment_binary_views(const chron_segment *s, uint64_t from, const uint64_t *offset,
                                          const uint32_t *length, size_t count, void *views);

/*
 * The record before the position, which moves back to it. 0: there is none, or retention has deleted it (but in the
 * segment that the reader is in, which it still maps, it may go on). Damaged ones are passed over: the stats count them.
 * Errors: EFORMAT, those of the system.
 */
CHRON_API int chron_reader_previous(chron_reader *r, chron_view *out);

/*
 * Wait until next() would return a record (or an error). 1: it would; 0: time is up. timeout_ns 0 only
 * looks; negative waits without limit.
 * Errors: EINTR (a signal handler ran while it slept).
 */
CHRON_API int chron_reader_wait(chron_reader *r, int64_t timeout_ns);

/*
 * Look for the next record of the reader's types, about 16 MiB at most; with `back` != 0 for the one before the position. 1: next()
 * (or previous()) has it at once, or answers an error; 0: there is none (yet); CHRON_NOT_READY: none was found so far, and
 * the position lies that much further on (or back): call again. For who must not be away for long, such as a
 * program that Ctrl-C should end. Without `types` only that: 1, or 0.
 * Errors: EFORMAT and those of the system, with `back`, as chron_reader_previous().
 */
CHRON_API int chron_reader_sift(chron_reader *r, int back);

/*
 * Store the position: what `resume` starts from. Nanoseconds, no system call, survives process death;
 * with `sync` != 0 it is put on disk before the call returns.
 * Errors: EREADONLY (the reader has no name), EIO (the position file went away), with `sync` those of the system.
 */
CHRON_API int chron_reader_commit(chron_reader *r, int sync);

/*
 * The same for a seq up to the position: `resume` starts from `upto`. For who has taken more records than were dealt with
 * so far. Not below the position committed before, unless the reader has moved back behind that.
 * Errors: EINVAL (`upto` lies elsewhere), and as chron_reader_commit().
 */
CHRON_API int chron_reader_commit_upto(chron_reader *r, uint64_t upto, int sync);

/*
 * Move to a seq: from the oldest up to the next one to be appended (with CHRON_DURABLE_ONLY: the first that is not
 * durable). Damage on the way does not matter, and if the record itself is damaged, it is chron_reader_next() that tells. An
 * error leaves the position where it is.
 * Errors: EGONE (below, and on_gap is CHRON_GAP_ERROR), ERANGE (above), EFORMAT (on the way there), those of the system.
 */
CHRON_API int chron_reader_seek(chron_reader *r, uint64_t seq);
/*
 * Move to the first record, in seq order, whose timestamp is not below `timestamp_ns`; or to the end. Damaged ones are
 * passed over.
 * Errors: EFORMAT, EREMOVED (see chron_reader_next()), those of the system.
 */
CHRON_API int chron_reader_seek_time(chron_reader *r, uint64_t timestamp_ns);
/* Move to the oldest record. Errors: EFORMAT and those of the system, as chron_reader_seek(). */
CHRON_API int chron_reader_seek_earliest(chron_reader *r);
/* Move behind the newest record. Errors: EFORMAT, EREMOVED (see chron_reader_next()), those of the system. */
CHRON_API int chron_reader_seek_latest(chron_reader *r);

/*
 * After ECORRUPT: move past the damage to the next record that can be read. Returns how many seqs were
 * passed over (0 if the record at the position is fine). If nothing readable follows yet, it moves behind what is known to
 * have been there: what a living writer has published, or what queue.meta tells of.
 * Errors: as chron_reader_next(), ECORRUPT if nothing readable follows, and nothing is known: the next writer may mend it.
 */
CHRON_API int64_t chron_reader_skip_damaged(chron_reader *r);

/* seq of the record that next() returns next. Never fails. */
CHRON_API uint64_t chron_reader_position(const chron_reader *r);
/* The position stored by the last commit; CHRON_SEQ_NONE if none. Never fails. */
CHRON_API uint64_t chron_reader_committed(const chron_reader *r);
/*
 * How many records there are from the position on (with CHRON_DURABLE_ONLY: durable ones). Some microseconds: it looks for
 * the newest one.
 * Errors: EFORMAT (of the newest segment), EREMOVED, EREWRITTEN and EGONE (see chron_reader_next()), those of the system.
 */
CHRON_API int64_t chron_reader_lag(chron_reader *r);
/* 1 if a writer has the queue open, 0 if not. One system call or two. Errors: those of the system. */
CHRON_API int chron_reader_writer_alive(chron_reader *r);
/* Fill *out with the reader's counters. Errors: none of its own. */
CHRON_API int chron_reader_stats_get(const chron_reader *r, chron_reader_stats *out);

/* ------------------------------------------------------------------------------------ event loops */

/*
 * An event loop must not sleep in chron_reader_wait(). It arms the reader, goes on, and looks again when another thread
 * has told it that the reader's bell was rung:
 *
 *     loop's thread                                   one thread for all handles
 *     chron_reader_bell(r, &bell);                    counts[i] = chron_bell_count(bells[i]);   (before the first arm)
 *     while (chron_reader_next(r, &v) == 0)           while (chron_bells_wait(bells, counts, n, -1) > 0)
 *         if (chron_reader_arm(r) == 0)                   tell the loops of those whose count changed;
 *             return to the loop;
 *
 * A bell may ring without a record being there: others wait at the same doorbell. It may also fail to ring, when the
 * writer dies in between: look now and then, too. Bells are reference counted and outlive their handles; the
 * functions that take them may be called by any thread.
 */

/*
 * Have the writer ring at its next publish. 0: it will; 1: it need not, next() would return something, or fail.
 * Errors: EACCESS (a sandbox forbids membarrier(2), so it may not: poll).
 */
CHRON_API int chron_reader_arm(chron_reader *r);
/*
 * The bell of the reader's queue; the reference is the caller's.
 * Errors: EACCESS (the doorbell cannot be written to: poll), ENOMEM.
 */
CHRON_API int chron_reader_bell(chron_reader *r, chron_bell **out);
/* The bell that rings when a sync of this writer has ended, by the keeper or not, well or not. Errors: ENOMEM. */
CHRON_API int chron_writer_bell(chron_writer *w, chron_bell **out);
/* One of the caller's own, to end a wait with chron_bell_ring(). Errors: ENOMEM. */
CHRON_API int chron_bell_new(chron_bell **out);
/* Ring a bell made by chron_bell_new(). Async-signal-safe. Errors: EINVAL (it is that of a queue). */
CHRON_API int chron_bell_ring(chron_bell *b);
/* How often it has been rung, modulo 2^32; 0 in a forked child. Never fails. */
CHRON_API uint32_t chron_bell_count(const chron_bell *b);
/*
 * Wait until the count of a bell differs from counts[i]. Returns how many differ, and stores their counts; 0 when
 * `timeout_ns` is over (negative: no limit). Where the system cannot wait for several (Linux before 5.16) it looks
 * every millisecond.
 * Errors: EINVAL (1 to CHRON_BELLS_MAX bells are possible), EINTR (a signal handler ran), EFORKED (a parent's bell).
 */
CHRON_API int chron_bells_wait(chron_bell *const *bells, uint32_t *counts, size_t n, int64_t timeout_ns);
/* Give the reference back. NULL is allowed. Never fails. */
CHRON_API void chron_bell_release(chron_bell *b);

/* ------------------------------------------------------------------------------ many queues as one */

/*
 * A merge reads many queues as one. Each record has a place: its timestamp, or, where its queue was further already, that
 * of the queue: the newest timestamp in front of it, less the lateness. Records come ordered by (place, index of
 * the source, seq). So the order depends on nothing but what the queues hold, however often reading stops and goes on. A record
 * whose place is not its timestamp is late: it is handed out all the same, and marked.
 *
 * Closed merges (not CHRON_MERGE_LIVE) read each source up to where it ended when it was added, or up to its `stop`. Live
 * ones go on: a source that has nothing new holds the others back, for its next record may belong in front of theirs, but not
 * longer than idle_ns. What it brings afterwards is late.
 *
 * With a name the merge has one stored position for all of its sources, and in each of them a reader of that name is
 * registered, for which retention waits; it is never further than the position of the merge. A merge belongs to one
 * thread at a time, as other handles.
 */

#define CHRON_MERGE_LIVE    0x200 /* chron_merge_options.flags: follow the sources; else they end */
#define CHRON_MERGE_MISSING 0x400 /* the same: sources that the stored position knows, and that are not added, may be missing */

/* chron_merge_options.order */
#define CHRON_MERGE_TIMESTAMP 0 /* by timestamp; what goes back in its queue by not more than the lateness is sorted in */
#define CHRON_MERGE_APPEND    1 /* each queue in its own order, and of their next ones the oldest; lateness_ns is 0 */

typedef struct chron_merge_options {
    uint32_t struct_size; /* sizeof(chron_merge_options) */
    uint32_t flags;       /* CHRON_MERGE_..., CHRON_ALLOW_NETFS, CHRON_DURABLE_ONLY */
    const char *name;     /* as that of a reader; NULL: no stored position, nothing is written */
    const char *home;     /* directory of <name>.merge, the stored position; NULL: readers/ of the first source added */
    uint32_t order;       /* CHRON_MERGE_TIMESTAMP, CHRON_MERGE_APPEND */
    uint32_t on_gap;      /* CHRON_GAP_...: of each source */
    uint64_t lateness_ns; /* by how much timestamps of one queue may go back; UINT64_MAX: sort all of it, in memory */
    uint64_t idle_ns;     /* live: how long a silent source holds up the others */
} chron_merge_options;

typedef struct chron_merge_source {
    uint32_t struct_size; /* sizeof(chron_merge_source) */
    uint32_t start;       /* CHRON_START_...; RESUME: at the stored position, or the oldest record */
    uint64_t start_value;
    uint64_t stop;        /* with has_stop: behind the last seq to be read; else: the end as it is now, or, when live, none */
    uint32_t has_stop;
    uint32_t reserved;    /* 0 */
} chron_merge_source;

/* One record of a merge. Pinned for ever. */
typedef struct chron_merged {
    chron_view record; /* its payload lies in a mapped segment, until the next call of chron_merge_next_batch() */
    uint32_t source;   /* index of its source */
    uint32_t late;     /* 1: its timestamp is older than its place in the order */
} chron_merged;

typedef struct chron_merge_source_info {
    uint32_t struct_size; /* sizeof(chron_merge_source_info) */
    uint32_t present;     /* 0: known from the stored position only, or dropped */
    uint32_t ended;       /* all up to its stop was read */
    uint32_t idle;        /* it holds up nobody */
    uint64_t position;    /* all records below this were handed out */
    uint64_t stop;        /* CHRON_SEQ_NONE: none */
    uint64_t records;     /* handed out by this handle, */
    uint64_t late;        /* and the late ones of them */
    uint64_t skipped;     /* records passed over by on_gap, or chron_merge_skip_damaged() */
} chron_merge_source_info;

/*
 * Begin a merge without sources. `options` may be NULL: closed, no name, by timestamp, lateness 0.
 * Errors: EINVAL (options that make no sense), ENOMEM.
 */
CHRON_API int chron_merge_open(const chron_merge_options *options, chron_merge **out);

/* Close and free. Does not commit. NULL is allowed, and so is a forked one, in the child. Never fails. */
CHRON_API void chron_merge_close(chron_merge *m);

/*
 * Add the queue at `path`; returns its index: the one that the stored position knows it by, or the next one. `how` may be NULL:
 * resume, no stop. A live merge takes further ones at any time; their older records are late then.
 * Errors: EINVAL (it is a source already, or a copy of one; a stop behind its end; or its reader has a position that the
 * merge's stored one does not know of: give the home that it had; options of the reader and of the stored position:
 * another order or lateness), ECORRUPT also of the stored position, EREADER also if the merge's name is in use, EBUSY (records
 * were handed out: only live merges take sources later), EFULL (2^20 sources), and as chron_reader_open(), chron_reader_seek()
 * and chron_queue_info_get().
 */
CHRON_API int64_t chron_merge_add(chron_merge *m, const char *path, const chron_merge_source *how);

/*
 * Take a source out, whose records are not wanted any more, or cannot be had: its queue was removed. What was read of it and not
 * handed out goes. Its stored position stays. Errors: ERANGE (there is no such source).
 */
CHRON_API int chron_merge_drop(chron_merge *m, uint32_t source);

/*
 * Up to `count` records in order; returns how many. 0: there are none now (live), or all sources have ended: see
 * chron_merge_ended(). Never blocks. An error is that of one source, which chron_merge_failed() names; nothing is lost by
 * it: the next call tries again.
 * Errors: EINVAL also if a source that the stored position knows was not added, ERANGE (a source ended before its stop), ENOMEM, EIO
 * also when a segment went away under a record, and as chron_reader_peek_columns() and chron_reader_advance().
 */
CHRON_API int64_t chron_merge_next_batch(chron_merge *m, chron_merged *out, size_t count);

/*
 * The same as columns, with the payloads copied one behind the other to columns->copy, which holds bytes_max; offsets are from
 * there. `source` and `late` have room for `count` elements, or are NULL. It stops early where the next payload
 * does not fit.
 * Errors: EBUFFER (not even the first one fits: columns->length_max says how much it needs), and as
 * chron_merge_next_batch().
 */
CHRON_API int64_t chron_merge_next_columns(chron_merge *m, chron_columns *columns, uint32_t *source, uint8_t *late,
                                           size_t count);

/* 1: all sources have ended, and all records were handed out; 0: not so. Never fails. */
CHRON_API int chron_merge_ended(const chron_merge *m);

/*
 * Wait until there are records, or an error, or the merge has ended: 1. 0: the time is up, or chron_merge_wake() was called.
 * Errors: EINTR (a signal handler ran while it slept).
 */
CHRON_API int chron_merge_wait(chron_merge *m, int64_t timeout_ns);

/* End the wait that another thread is in, or the next one. Never fails. */
CHRON_API void chron_merge_wake(chron_merge *m);

/*
 * Store the position, of all sources together: that behind all records handed out, but for the last `left` of the last
 * batch. It survives the death of the process as a whole or not at all; with `sync` it is on disk before the call returns. Then
 * the sources' readers follow.
 * Errors: EREADONLY (the merge has no name), EINVAL (so many were not in the last batch), those of the system, and as
 * chron_reader_commit_upto().
 */
CHRON_API int chron_merge_commit(chron_merge *m, size_t left, int sync);

/* Index of the source whose error the last call returned; -1 if it was none's. Never fails. */
CHRON_API int64_t chron_merge_failed(const chron_merge *m);

/*
 * After ECORRUPT of a source: see chron_reader_skip_damaged().
 * Errors: ERANGE (no such source), and as chron_reader_skip_damaged().
 */
CHRON_API int64_t chron_merge_skip_damaged(chron_merge *m, uint32_t source);

/* How many sources there are, those that are missing included. Never fails. */
CHRON_API uint32_t chron_merge_sources(const chron_merge *m);
/* Path of a source, as it was given; NULL if there is none. Valid until the next chron_merge_add() or the close. Never fails. */
CHRON_API const char *chron_merge_path(const chron_merge *m, uint32_t source);
/* Fill *out with how a source fares. Errors: ERANGE (there is no such source). */
CHRON_API int chron_merge_source_get(const chron_merge *m, uint32_t source, chron_merge_source_info *out);

/* ------------------------------------------------------------------------------------------ queue */

typedef struct chron_queue_info {
    uint32_t struct_size;   /* sizeof(chron_queue_info) */
    uint32_t format_version;
    uint32_t writer_alive;
    uint32_t clean;         /* no writer, and the last one closed properly */
    uint8_t uuid[16];
    uint64_t segment_size;  /* bytes */
    uint64_t created_ns;
    uint64_t oldest_seq;    /* oldest that can be read; equals next_seq if there is none */
    uint64_t next_seq;      /* seq of the next record to be appended */
    uint64_t durable_seq;   /* or CHRON_SEQ_NONE */
    uint64_t epoch;         /* how often it was opened for writing; 0: not known */
    uint64_t segments;
    uint64_t bytes;         /* in segment files */
    int64_t writer_pid;     /* 0: none active, or unknown */
    uint64_t writer_start_ns;
    char writer_host[64];
    uint32_t meta_lost;     /* queue.meta is missing or damaged: no writer opens the queue before a repair */
    uint32_t reserved;      /* 0 */
    uint64_t quarantine_files; /* what recovery and repairs have set aside; on the disk: */
    uint64_t quarantine_bytes;
} chron_queue_info;

typedef struct chron_segment_info {
    uint32_t struct_size;   /* sizeof(chron_segment_info); in an array: of the first one */
    uint32_t sealed;
    uint32_t damaged;       /* its header cannot be read: the other fields are 0 */
    uint32_t reserved;      /* 0 */
    uint64_t base_seq;
    uint64_t next_seq;      /* first seq behind the segment */
    uint64_t bytes;         /* size of the file */
    uint64_t used_bytes;    /* up to the end of its last record */
    uint64_t first_ts_ns;   /* of its first and last record; 0 if it has none */
    uint64_t last_ts_ns;
    uint64_t created_ns;
    uint64_t epoch;         /* of the writer that made it */
} chron_segment_info;

typedef struct chron_reader_info {
    uint32_t struct_size;   /* sizeof(chron_reader_info); in an array: of the first one */
    uint32_t alive;         /* some process has it open */
    uint32_t damaged;       /* its position file cannot be read: position and lag are 0 */
    char name[68];
    uint64_t position;      /* committed: seq it will resume from */
    uint64_t lag;           /* records between there and the end */
    uint64_t updated_ns;    /* when it last committed, or was registered; damaged: when the file was last changed */
    int32_t sys_errno;      /* damaged: what opening or reading the file answered; 0: its content is damaged */
    uint32_t reserved;      /* 0 */
} chron_reader_info;

/*
 * Look at a queue, in use or not, without a handle. Read permission suffices. Where queue.meta is lost, any segment's header
 * takes its place. Damage at the end of the log counts as records if queue.meta says that they were there; else the log
 * ends before it.
 * Errors: ENOQUEUE, ECORRUPT (queue.meta and its substitutes cannot be read), EFORMAT (of them, or the newest segment), those
 * of the system.
 */
CHRON_API int chron_queue_info_get(const char *path, chron_queue_info *out);
/*
 * Fill up to `capacity`; return how many there are (which may be more). Oldest first.
 * Errors: ENOQUEUE, ECORRUPT and EFORMAT (queue.meta and its substitutes cannot be read), those of the system.
 */
CHRON_API int64_t chron_queue_segments(const char *path, chron_segment_info *out, size_t capacity);
/*
 * Registered readers, by name. Fill up to `capacity`; return how many there are.
 * Errors: as chron_queue_info_get().
 */
CHRON_API int64_t chron_queue_readers(const char *path, chron_reader_info *out, size_t capacity);
/*
 * Remove a registered reader that is not running.
 * Errors: EREADER (it is), ENOQUEUE (there is no queue, or no such reader), EINVAL (no reader has such a name),
 * ECORRUPT and EFORMAT (queue.meta and its substitutes cannot be read), those of the system.
 */
CHRON_API int chron_queue_reader_remove(const char *path, const char *name);

/* chron_problem.kind */
#define CHRON_PROBLEM_META      1  /* queue.meta */
#define CHRON_PROBLEM_HEADER    2  /* a segment's header */
#define CHRON_PROBLEM_RECORD    3  /* a record: CRC, length, seq or epoch */
#define CHRON_PROBLEM_CHAIN     4  /* a segment is missing, or does not follow the one before it */
#define CHRON_PROBLEM_SEAL      5  /* a seal does not match its segment */
#define CHRON_PROBLEM_INDEX     6  /* a block index entry is wrong (readers fall back to a scan) */
#define CHRON_PROBLEM_TAIL      7  /* bytes behind the last record, and no writer active: recovery will cut them */
#define CHRON_PROBLEM_POSITION  8  /* a reader's position file */
#define CHRON_PROBLEM_DOORBELL  9  /* the doorbell file (readers poll instead) */
#define CHRON_PROBLEM_FILE      10 /* a file that cannot be opened, or is not what its name says */
/* From CHRON_NOTES on: to be known, and nothing is wrong. */
#define CHRON_NOTES           100
#define CHRON_NOTE_FOREIGN    100 /* a file or directory that is not the queue's: it is left alone */
#define CHRON_NOTE_GAP        101 /* records that are gone, and were accepted as gone: by a repair, or CHRON_TORN_SKIP */
#define CHRON_NOTE_UNREADABLE 102 /* what was not checked, for lack of permission */
#define CHRON_NOTE_QUARANTINE 103 /* a file in quarantine/ */

/* chron_problem.action: what a repair does about it */
#define CHRON_ACTION_NONE  0
#define CHRON_ACTION_ANEW  1  /* the file, or that part of it, is made anew from what is known elsewhere: nothing is lost */
#define CHRON_ACTION_GAP   2  /* records `seq` up to `seq_end` are accepted as gone, for good */
#define CHRON_ACTION_CUT   3  /* the log ends before `seq`: what is behind is kept in quarantine/ */
#define CHRON_ACTION_MOVE  4  /* the file is moved to quarantine/ */
#define CHRON_ACTION_READY 99 /* with kind 0: all is told, and nothing was changed yet */

/* What a verification, or a repair, has found. May grow at its end. */
typedef struct chron_problem {
    uint32_t kind;       /* CHRON_PROBLEM_..., CHRON_NOTE_...; 0 is a progress report: only `file` and `seq` are set */
    uint32_t reserved;
    uint64_t seq;        /* first seq concerned, or CHRON_SEQ_NONE */
    uint64_t seq_end;    /* behind the last seq concerned, if known; else CHRON_SEQ_NONE */
    uint64_t offset;     /* bytes from the start of the file */
    char file[96];       /* relative to the queue directory */
    char text[256];
    uint32_t action;     /* CHRON_ACTION_...: of chron_queue_repair() only */
    uint32_t reserved2;
} chron_problem;

typedef struct chron_verify_summary {
    uint32_t struct_size; /* sizeof(chron_verify_summary) */
    uint32_t reserved;    /* 0 */
    uint64_t records;    /* good ones */
    uint64_t payload_bytes;
    uint64_t segments;
    uint64_t readers;
    uint64_t problems;
    uint64_t oldest_seq;
    uint64_t next_seq;
    uint64_t gaps;        /* that were accepted (CHRON_REPAIR, CHRON_TORN_SKIP): no problems any more */
    uint64_t gap_records; /* seqs in them */
    uint64_t notes;       /* reported besides, with kinds from CHRON_NOTES on */
} chron_verify_summary;

/* Called for each problem and each note, and with kind 0 now and then. A nonzero result stops the walk (EINTR). */
typedef int (*chron_problem_fn)(void *context, const chron_problem *problem);

/*
 * Read everything in the queue and check it against the format: every CRC, every link. Writes nothing;
 * may run beside a live writer and readers. Returns 0 if it could look, whatever it found: see summary->problems.
 * `report` and `summary` may be NULL.
 * Errors: ENOQUEUE, EFORMAT (of queue.meta), EINTR (`report` stopped it: summary tells how far it came), those of the
 * system.
 */
CHRON_API int chron_queue_verify(const char *path, chron_problem_fn report, void *context,
                                 chron_verify_summary *summary);

/*
 * Put a queue in order that no writer opens because it is damaged. All whole records stay. Those that cannot be had are given
 * up for good, as gaps: their seqs are not given away again, and readers meet them as what retention deleted. What can be
 * known from elsewhere is made anew: queue.meta from any segment's header, headers, seals, the index. What is set aside is
 * kept in quarantine/. What is left counts as durable afterwards, where the file system can keep anything.
 *
 * The whole log is read first. `report` (may be NULL) is called for each thing that is wrong, with what is done about it
 * (`action`), and with kind 0 now and then; at last with kind 0 and CHRON_ACTION_READY. Nothing has been changed until then,
 * and nothing will be if it ever answers other than 0. With CHRON_DRY_RUN the call ends there, takes no lock, and read permission
 * suffices. *out (may be NULL) says what was done, or would be.
 * Errors: ENOQUEUE, EWRITER (a writer has the queue open), EGONE (CHRON_DRY_RUN: one has opened it meanwhile, and deleted a
 * segment), EINTR (`report` stopped it), ECORRUPT (queue.meta is lost and there is no segment to make it from, or they are
 * of different queues: the text names them), EFORMAT, ENETFS (but for CHRON_ALLOW_NETFS in `flags`), EREMOVED, ENOTDURABLE,
 * EPOISONED, EFULL, those of the system.
 */
CHRON_API int chron_queue_repair(const char *path, uint32_t flags, chron_problem_fn report, void *context,
                                 chron_recovery *out);

/* chron_quarantine_file.kind */
#define CHRON_QUARANTINE_SEGMENT 1 /* a whole segment's file */
#define CHRON_QUARANTINE_CUT     2 /* bytes of a segment that goes on being used */
#define CHRON_QUARANTINE_FILE    3 /* a small file of the queue, as it was */

/* What recovery, or a repair, has set aside in quarantine/. */
typedef struct chron_quarantine_file {
    uint32_t struct_size; /* sizeof(chron_quarantine_file); in an array: of the first one */
    uint32_t kind;        /* CHRON_QUARANTINE_... */
    uint64_t bytes;       /* on the disk */
    uint64_t kept_ns;     /* when it was put there, as far as the file system tells */
    uint64_t epoch;       /* of the opening that did */
    uint64_t base_seq;    /* first seq of the segment it is of, or CHRON_SEQ_NONE */
    uint64_t offset;      /* CUT: where in the segment it stood */
    uint64_t seq;         /* CUT: of the record that stood there, or should have; or CHRON_SEQ_NONE: not known */
    uint64_t records;     /* CUT: whole ones in it; or CHRON_SEQ_NONE: not counted */
    uint64_t first_seq;   /* CUT: of the first of them, or CHRON_SEQ_NONE */
    char name[96];        /* in quarantine/ */
} chron_quarantine_file;

/*
 * Fill up to `capacity`, oldest first; return how many there are. Read permission suffices.
 * Errors: ENOQUEUE, ECORRUPT and EFORMAT (queue.meta and its substitutes cannot be read), those of the system.
 */
CHRON_API int64_t chron_queue_quarantine(const char *path, chron_quarantine_file *out, size_t capacity);

/* Called for each record; the payload is only there until it returns. A nonzero result stops (EINTR). */
typedef int (*chron_view_fn)(void *context, const chron_view *record);

/*
 * Hand out every whole record in the file `name` of quarantine/, by seq, and return how many there were. They were cut off, or
 * taken away, for a reason: the log may have other records of these seqs.
 * Errors: ENOQUEUE (there is no queue, or no such file), EINVAL (`name` is none of a file there, or `each` is NULL), EINTR,
 * ECORRUPT (of a .cut, the page that says what it is), EFORMAT, those of the system.
 */
CHRON_API int64_t chron_queue_quarantine_read(const char *path, const char *name, chron_view_fn each, void *context);

/* ----------------------------------------------------------------------------------------- groups */

/*
 * A group of workers shares out the records of a queue, as jobs: each is handed to one of its members, who acknowledges it. What
 * is not acknowledged is handed out again: when its worker dies (the kernel tells: no time-out), gives it back, or has exceeded
 * the lease, if there is one. A job that was handed out `max_deliveries` times and not acknowledged goes to the queue
 * "<path>.dead", a record as it was and behind it one that tells its history. Any number of groups on a queue, beside readers. To
 * retention a group is a reader of its name, at its floor: below it all jobs are done.
 *
 * Promised: over the death of processes no job is lost, and one that was acknowledged is never handed out again. Over a loss
 * of power each job is handed out at least once, and never again after chron_group_ack(..., sync = 1). Not promised: that the
 * effects of a worker that died, or whose lease ended, did not happen; any order, but with `key`. The window is the distance of
 * the newest job that was handed out from the oldest that is not done: one job that is stuck stops the group after so many.
 *
 * A group handle belongs to one thread at a time. Groups need Linux, and a file system where a lock can be held by a mapping
 * (not an overlay).
 */

/* The key of a job, as a hash (or, if it is that small, itself): 0 to 2^32 - 1. A negative answer ends the call (EINTR). */
typedef int64_t (*chron_key_fn)(void *context, const chron_view *record);

typedef struct chron_group_options {
    uint32_t struct_size;    /* sizeof(chron_group_options) */
    uint32_t flags;          /* CHRON_CHECKED, CHRON_ALLOW_NETFS, CHRON_DURABLE_ONLY, CHRON_MUST_EXIST (the group) */
    uint32_t max_deliveries; /* 1 to CHRON_GROUP_DELIVERIES_MAX, 0 = 5 */
    uint32_t window;         /* jobs, a power of two; 0 = CHRON_GROUP_WINDOW_DEFAULT; used when the group is made */
    uint32_t start;          /* CHRON_START_...: where a new group begins; RESUME: at the position of a reader of its name, or
                                the oldest record. Ignored where the group is there already */
    uint32_t on_gap;         /* CHRON_GAP_ERROR or CHRON_GAP_OLDEST: jobs that retention has deleted undone */
    uint32_t mode;           /* permission bits for new files, 0 = 0600 */
    uint32_t reserved;       /* 0 */
    uint64_t start_value;
    uint64_t lease_ns;       /* how long a job may run before others may have it; 0: as long as its worker lives */
    chron_key_fn key;        /* jobs with equal keys are handed out in order, one at a time; NULL: in any order */
    void *key_context;
} chron_group_options;

/* One job. The payload is valid until the next chron_group_take() of this handle, or its end. */
typedef struct chron_job {
    uint32_t struct_size; /* sizeof(chron_job); in an array: of the first one */
    uint32_t delivery;    /* how often it was handed out, this time included: 1 is the first */
    uint64_t receipt;     /* what it is acknowledged with */
    uint64_t seq;
    uint64_t timestamp_ns;
    const void *payload;
    size_t length;        /* bytes */
    uint16_t type_id;
    uint8_t flags;        /* the user's */
    uint8_t reserved;     /* 0 */
    uint32_t reserved2;   /* 0 */
} chron_job;

typedef struct chron_group_stats {
    uint32_t struct_size; /* sizeof(chron_group_stats) */
    uint32_t reserved;    /* 0 */
    uint64_t taken;       /* jobs that were handed out through this handle */
    uint64_t redelivered; /* of these: for a second time or more */
    uint64_t acked;
    uint64_t nacked;
    uint64_t stale;       /* receipts that were refused */
    uint64_t reclaimed;   /* jobs taken from the dead, or from an expired lease */
    uint64_t dead;        /* jobs that were handed over to the dead queue */
    uint64_t lost;        /* jobs that retention had deleted undone (CHRON_GAP_OLDEST) */
    uint64_t inherited;   /* turns taken over from the dead */
} chron_group_stats;

/*
 * Join the group `name` of the queue at `path`; make it if it is not there. `options` may be NULL. The first to come puts in order
 * what a loss of power may have left. Waits up to ten seconds for others that join.
 * Errors: EINVAL (options that make no sense, or other than the group's: with or without key), ENOQUEUE, EREADER (a reader
 * of this name is active), EHELD (all 1024 places are taken, or somebody who joins has been stopped), ENOTSUP, ECORRUPT, EFORMAT,
 * EGONE, ERANGE, EREMOVED, EREWRITTEN, EINTR, ENETFS, those of the system.
 */
CHRON_API int chron_group_open(const char *path, const char *name, const chron_group_options *options,
                               chron_group **out);
/*
 * Leave, and free the handle: what it has and did not acknowledge is handed out again at once. NULL is allowed.
 * Errors: EBUSY (with CHRON_CHECKED: another thread is inside, and nothing was closed or freed).
 */
CHRON_API int chron_group_close(chron_group *g);
/* The same, but the handle's memory stays: see chron_writer_shut(). Errors: as chron_group_close(). */
CHRON_API int chron_group_shut(chron_group *g);

/*
 * Up to `count` jobs that nobody has; returns how many, 0: there is none now. A job that was handed out before comes alone,
 * so that only the one that kills its workers is counted to death. Never waits, but for others in the same call: up to five seconds.
 * A job that cannot be read counts as handed out, is given back, and the error is this call's; so it ends in the dead queue, too. An
 * error while a job is handed over to the dead queue leaves it undone: the next call but a second later tries again.
 * Errors: EWINDOW (there are jobs, but the oldest one that is not done is too far behind), EHELD (a process in the same call is
 * stopped: chron_error.pid), EINTR (`key` ended it, or a signal), EGONE (retention has deleted jobs), ECORRUPT, EFORMAT,
 * EREMOVED and EREWRITTEN as chron_reader_next(), or of the dead queue; those of appending there: EWRITER, EFULL, ETOOBIG,
 * EPOISONED, EUNSYNCED, ENOQUEUE, ERANGE, ENETFS, those of the system.
 */
CHRON_API int64_t chron_group_take(chron_group *g, chron_job *out, size_t count);

/*
 * The job is done. With `sync` that is on disk before the call returns: it is not handed out again even after a loss of power.
 * Otherwise no system call. After an error of the system the job is done, and not known to be on disk.
 * Errors: ESTALE (its lease had ended, or somebody has released it: others may have it now), with `sync` those of the system.
 */
CHRON_API int chron_group_ack(chron_group *g, uint64_t seq, uint64_t receipt, int sync);
/*
 * Give the job back: others may have it, after `delay_ns` by the wall clock.
 * Errors: ESTALE, with a delay also EHELD, EINTR, those of the system.
 */
CHRON_API int chron_group_nack(chron_group *g, uint64_t seq, uint64_t receipt, uint64_t delay_ns);
/* Let the lease end `lease_ns` from now, 0: never. Errors: ESTALE, EHELD, EINTR, those of the system. */
CHRON_API int chron_group_extend(chron_group *g, uint64_t seq, uint64_t receipt, uint64_t lease_ns);
/*
 * Hand the job over to the dead queue now. `reason` (may be NULL) is kept in its history: UTF-8, up to 400 bytes.
 * Errors: ESTALE, EINTR; those of the dead queue, as chron_group_take() has them, and then it is handed over later: EGONE,
 * ECORRUPT, EFORMAT, EREMOVED, EREWRITTEN, EWRITER, EFULL, ETOOBIG, EPOISONED, EUNSYNCED, ENOQUEUE, ERANGE, ENETFS, those of the
 * system.
 */
CHRON_API int chron_group_reject(chron_group *g, uint64_t seq, uint64_t receipt, const char *reason);
/*
 * Take the job `seq` from whoever has it, as if a lease had ended, or end its delay: others may have it.
 * Errors: ERANGE (nobody has it), EHELD, EINTR, those of the system.
 */
CHRON_API int chron_group_release(chron_group *g, uint64_t seq);
/*
 * Hand the job `seq` over to the dead queue, whoever has it.
 * Errors: ERANGE (it is done, or was never handed out), EHELD, EINTR, and those of the dead queue: EGONE, ECORRUPT,
 * EFORMAT, EREMOVED, EREWRITTEN, EWRITER, EFULL, ETOOBIG, EPOISONED, EUNSYNCED, ENOQUEUE, ENETFS, those of the system.
 */
CHRON_API int chron_group_bury(chron_group *g, uint64_t seq, const char *reason);

/* Would take() give something, or fail? 1, or 0 after `timeout_ns` (negative: no limit). Errors: EINTR. */
CHRON_API int chron_group_wait(chron_group *g, int64_t timeout_ns);
/* As chron_reader_arm(); delays, leases and deaths ring no bell: look at least every 100 ms. Errors: EACCESS. */
CHRON_API int chron_group_arm(chron_group *g);
/* As chron_reader_bell(). Errors: EACCESS, ENOMEM. */
CHRON_API int chron_group_bell(chron_group *g, chron_bell **out);
/* Put the group's state on disk: what was acknowledged so far is not handed out again. Errors: those of the system. */
CHRON_API int chron_group_sync(chron_group *g);
/* Fill *out with the handle's counters. Errors: none of its own. */
CHRON_API int chron_group_stats_get(const chron_group *g, chron_group_stats *out);

typedef struct chron_group_info {
    uint32_t struct_size; /* sizeof(chron_group_info); in an array: of the first one */
    uint32_t window;      /* jobs */
    uint32_t keyed;       /* 1: in order of keys */
    uint32_t members;     /* handles that have joined */
    uint64_t floor;       /* all jobs below are done */
    uint64_t next_new;    /* no job at or behind it was handed out yet */
    uint64_t end;         /* next_seq of the queue */
    uint64_t running;     /* of those between floor and next_new: somebody has them, */
    uint64_t ready;       /* they were given back, */
    uint64_t delayed;
    uint64_t deading;     /* they are on their way to the dead queue, */
    uint64_t done;
    uint32_t damaged;     /* its file cannot be read: the fields from `window` on are 0 */
    uint32_t reserved;    /* 0 */
    char name[72];
} chron_group_info;

/* chron_group_held.state */
#define CHRON_JOB_READY   1
#define CHRON_JOB_RUNNING 3
#define CHRON_JOB_DELAYED 4
#define CHRON_JOB_DEADING 5

/* A job that was handed out and is not done. */
typedef struct chron_group_held {
    uint32_t struct_size; /* sizeof(chron_group_held); in an array: of the first one */
    uint32_t state;       /* CHRON_JOB_... */
    uint64_t seq;
    uint32_t deliveries;
    uint32_t alive;       /* 1: its worker lives */
    int64_t pid;          /* of the worker that has it, or had it last; 0: not known */
    uint64_t for_ns;      /* RUNNING: how long it has it, to a tenth of a second */
    int64_t due_ns;       /* RUNNING: until its lease ends; DELAYED: until it is due; negative: since. INT64_MAX: no lease */
} chron_group_held;

/*
 * The groups of a queue, by name. Fill up to `capacity`; return how many there are. Read permission suffices.
 * Errors: as chron_queue_info_get().
 */
CHRON_API int64_t chron_queue_groups(const char *path, chron_group_info *out, size_t capacity);
/*
 * The jobs of a group that were handed out and are not done, by seq. Fill up to `capacity`; return how many there are.
 * Errors: ENOQUEUE (there is no queue, or no such group), EINVAL (no group has such a name), ECORRUPT, EFORMAT, those of the
 * system.
 */
CHRON_API int64_t chron_queue_group_jobs(const char *path, const char *name, chron_group_held *out, size_t capacity);
/*
 * Remove a group that has no members, and its position.
 * Errors: EHELD (it has), ENOQUEUE (there is no queue, or no such group), EINVAL (no group has such a name), EREADER (a reader of
 * its name is active), ENOTSUP, ECORRUPT, EFORMAT, EINTR, those of the system.
 */
CHRON_API int chron_queue_group_remove(const char *path, const char *name);

/* cdef: end */

#ifdef __cplusplus
}
#endif

#endif /* CHRONICLE_H */
