/* group.pml - a group of workers: jobs in a window of cells that are used again, receipts, leases, deaths at any step, and
 * the hand-off of a dead letter to another queue. The order of stores is that of csrc/src/group/ and format/group.c.
 *
 * A cell is ONE word: lap, state, owner's incarnation, delivery count. Every transition is one store or one compare-and-swap,
 * and the value itself is the receipt. A worker may die in front of every store; its incarnation is never used again.
 * A dead letter goes to an ordinary queue: an append there and the store here are two steps. Who finds a cell in DEADING
 * whose owner is dead looks for it there first.
 *
 * Proven: every job is acknowledged or a dead letter, once; none of these is handed out again; none is started more often
 * than MAXDELIV times; the floor passes only what is done.
 *
 * Each of these breaks one rule, and has to give a counterexample:
 *  -DNOLOOKUP      the successor does not look          => two dead letters
 *  -DACKFIRST      done is stored before the letter     => a job is lost
 *  -DNOCOUNT       counted at the acknowledgement       => started too often
 *  -DSTATEONLY     an acknowledgement compares the state alone => that of another lap is done, which nobody has done
 *  -DPLAINTAKE     a job of a dead owner is taken by a store => it had acknowledged between the look at the cell and that at
 *                  its lock, and is handed out again
 *  -DPLAINRECLAIM  an expired lease is taken by a store => the same
 *  -DEARLYCELL     a cell is used again before the floor has passed it => a job is lost
 *  -DFLOORFIRST    the floor is moved at the hand-out   => a job is lost
 */
#ifndef MAXD
#define MAXD 2
#endif
#ifndef NJ
#define NJ 3
#endif
#define W 2
#define MAXDELIV 2
#define NEW 0
#define READY 1
#define RESERVED 2
#define RUNNING 3
#define DEADING 4
#define DONE 5
byte lap[W], st[W], own[W], cnt[W];
byte floor, deaths, nextinc = 1, tholder;
byte deadq[NJ], started[NJ], finished[NJ];
bool alive[8];

#define C(s) ((s) % W)
#define LAP(s) ((s) / W + 1)
#define HERE(s) (lap[C(s)] == LAP(s))
#define STATE(s) (HERE(s) -> st[C(s)] : NEW)
#define SET(s, what, who, n) lap[C(s)] = LAP(s); st[C(s)] = what; own[C(s)] = who; cnt[C(s)] = n
#define DIE(x) atomic{ if :: x :: deaths < MAXD -> deaths++; goto die fi }
#define LOCK DIE(tholder == 0 || !alive[tholder] -> tholder = me)
#define UNLOCK DIE(tholder = 0)
#define OURS(what) (HERE(s) && st[C(s)] == what && own[C(s)] == me)
#ifdef STATEONLY
#define RECEIPT (st[C(s)] == RUNNING)
#else
#define RECEIPT (OURS(RUNNING) && cnt[C(s)] == n)
#endif
/* As it was when it was judged? */
#define SAME ((what == NEW && !HERE(s)) || (HERE(s) && st[C(s)] == what && own[C(s)] == seen && cnt[C(s)] == n))
#ifdef PLAINTAKE
#define CAS(x) x
#else
#define CAS(x) if :: SAME -> x :: else fi
#endif

proctype Wk() {
    byte me, s, n, seen, what;
again: skip;
    atomic { if :: nextinc < 7 -> me = nextinc; nextinc++; alive[me] = 1 :: else -> goto gone fi };
    do
    :: atomic { floor >= NJ } -> break
    :: atomic { floor < NJ } ->
       LOCK;
       /* Any job of the window, in any order: what the code prefers does not matter here. */
       atomic { if :: s = (floor < NJ -> floor : NJ - 1) :: floor + 1 < NJ -> s = floor + 1
#ifdef EARLYCELL
                   :: floor + 2 < NJ -> s = floor + 2
#endif
                fi };
       atomic { what = STATE(s); seen = own[C(s)]; n = (HERE(s) -> cnt[C(s)] : 0) };
       if
       :: atomic { what == DONE } ->
          if :: atomic { s == floor } -> DIE(floor++) :: atomic { s != floor } fi
       :: atomic { what == NEW || what == READY || ((what == RESERVED || what == RUNNING) && !alive[seen]) } ->
          if
          :: atomic { n >= MAXDELIV } -> DIE(d_step { CAS(SET(s, DEADING, me, n)) })
          :: atomic { n < MAXDELIV } -> DIE(d_step { CAS(SET(s, RESERVED, me, n)) })
#ifdef FLOORFIRST
             ; if :: atomic { s == floor } -> DIE(floor++) :: atomic { s != floor } fi
#endif
          fi
       :: atomic { what == RUNNING && alive[seen] } ->       /* its lease may have expired */
          if
          :: skip
#ifdef PLAINRECLAIM
          :: DIE(d_step { SET(s, READY, 0, n) })
#else
          :: DIE(d_step { if :: SAME -> st[C(s)] = READY :: else fi })
#endif
          fi
       :: atomic { what == DEADING && !alive[seen] } -> DIE(own[C(s)] = me)
       :: atomic { (what == RESERVED || what == DEADING) && alive[seen] } -> skip
       fi;
       UNLOCK;
       if
       :: atomic { OURS(RESERVED) } ->
          DIE(d_step {                                       /* counted before the user's code runs */
#ifndef NOCOUNT
              cnt[C(s)]++;
#endif
              st[C(s)] = RUNNING; n = cnt[C(s)]; started[s]++;
              assert(started[s] <= MAXDELIV); assert(finished[s] == 0 && deadq[s] == 0) });
          DIE(skip);                                         /* the user's code */
          if                                                 /* no turn: the receipt is compared, and swapped, in one */
          :: DIE(d_step { if :: RECEIPT -> st[C(s)] = DONE; finished[s]++
#ifdef NOCOUNT
                                           ; cnt[C(s)]++
#endif
                             :: else fi })
          :: DIE(d_step { if :: RECEIPT -> st[C(s)] = READY :: else fi })
          fi
       :: atomic { OURS(DEADING) } ->                         /* not in the turn: the other queue has its own */
#ifdef ACKFIRST
          DIE(st[C(s)] = DONE); DIE(deadq[s]++)
#else
#ifndef NOLOOKUP
          DIE(n = deadq[s]);
          if :: atomic { n == 0 } -> DIE(deadq[s]++) :: atomic { n > 0 } fi;
#else
          DIE(deadq[s]++);
#endif
          DIE(d_step { if :: OURS(DEADING) -> st[C(s)] = DONE :: else fi })
#endif
       :: atomic { !OURS(RESERVED) && !OURS(DEADING) }
       fi
    od; goto gone;
die: skip; atomic { alive[me] = 0 }; goto again;
gone: skip
}

active proctype Final() {
    byte i;
    timeout -> atomic {
        assert(floor >= NJ || nextinc >= 7);
        i = 0;
        do :: i < NJ ->
              assert(finished[i] + deadq[i] <= 1);
              assert(i >= floor || finished[i] + deadq[i] == 1);
              i++
           :: else -> break
        od }
}

init { atomic { run Wk(); run Wk() } }
