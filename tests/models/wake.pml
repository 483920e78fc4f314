/* SPDX-License-Identifier: MIT */
/* wake.pml - the owner word as a futex: CAS 0->me; spin; set WAITERS; sleep; unlock = exchange 0, wake one if WAITERS was set.
 * Sleepers may be killed (after being woken, too). TIMEOUT=1: a sleeper comes back after 2 ms by itself.
 * Without TIMEOUT and without deaths nobody may sleep for ever (invalid end state). With deaths TIMEOUT is needed. */
#ifndef NW
#define NW 3
#endif
#ifndef KEEP
#define KEEP slept
#endif
#ifndef ROUNDS
#define ROUNDS 2
#endif
#ifndef MAXD
#define MAXD 0
#endif
byte owner;          /* 0 or me+1 */
bool waiters;        /* WAITERS bit, same word */
bool asleep[NW];     /* in the kernel's queue */
bool dead[NW]; byte deaths, holder;
inline wake_one(){ d_step{ if :: asleep[0] -> asleep[0]=0 :: else -> if :: asleep[1] -> asleep[1]=0 :: else -> if :: NW>2 && asleep[NW-1] -> asleep[NW-1]=0 :: else fi fi fi } }
#define DIE(x) atomic{ if :: x :: deaths<MAXD -> deaths++; dead[me]=1; asleep[me]=0; if :: holder==me+1 -> holder=0 :: else fi; goto gone fi }
proctype W(byte me){ byte r, o; bool w, slept;
  do :: r<ROUNDS ->
     slept=0;
again: skip;
     if
     :: DIE(owner==0 -> owner=me+1; waiters=KEEP; assert(holder==0); holder=me+1)
     :: atomic{ owner!=0 -> o=owner; w=waiters };
        if :: atomic{ dead[o-1] && owner==o -> owner=me+1; waiters=1; assert(holder==0); holder=me+1 }; goto in
           :: atomic{ !(dead[o-1] && owner==o) } fi;
        if :: atomic{ !w -> if :: owner==o && !waiters -> waiters=1; w=1 :: else -> w=0 fi } :: atomic{ w } fi;
        if :: atomic{ !w } -> goto again :: atomic{ w } fi;
        /* futex_wait: the kernel compares the word */
        atomic{ if :: owner==o && waiters -> asleep[me]=1 :: else -> skip fi };
        slept=1;
#ifdef TIMEOUT
        DIE(asleep[me]=0);
#else
        DIE(!asleep[me]);
#endif
        goto again
     fi;
in:  DIE(skip);
     atomic{ holder=0; w=waiters; owner=0; waiters=0 };
     if :: atomic{ w } -> DIE(wake_one()) :: atomic{ !w } fi;
     r++
  :: r>=ROUNDS -> break od;
gone: skip }
init{ byte i; atomic{ i=0; do :: i<NW -> run W(i); i++ :: else -> break od } }
