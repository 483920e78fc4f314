/* SPDX-License-Identifier: MIT */
/* group.pml - a group of workers: jobs, receipts, death, dead-letter hand-off into another queue.
 * Cell state and receipt number are ONE word (state|owner incarnation|delivery count); a worker that dies at any step.
 * The dead queue is an ordinary queue: an append there and the store here are two steps. The hand-off writes the job's
 * seq into the dead record; who finds a cell in DEADING looks it up in the dead queue first (lookup bounded by dead_from).
 *  -DNOLOOKUP: does not look  => doubled;  -DACKFIRST: marks done first => lost; -DNOCOUNT: count raised at ack, not at take */
#ifndef MAXD
#define MAXD 3
#endif
#define MAXDELIV 2
#define READY 0
#define TAKEN 1
#define DEADING 2
#define DONE 3
byte st, own, cnt, deaths, deadq, started, finished; bool alive[8]; byte nextinc=1; bool turn; byte tholder;
#define DIE(x) atomic{ if :: x :: deaths<MAXD -> deaths++; goto die fi }
#define LOCK DIE(tholder==0 || !alive[tholder] -> tholder=me)
#define UNLOCK DIE(tholder=0)
proctype Wk(){ byte me, r, c;
again: skip;
  atomic{ if :: nextinc<7 -> me=nextinc; nextinc++; alive[me]=1 :: else -> goto gone fi };
  do
  :: atomic{ st==DONE } -> break
  :: atomic{ st==READY || (st!=DONE && !alive[own]) } ->
     LOCK;
     if
     :: atomic{ st==READY || (st==TAKEN && !alive[own]) } ->
        if
        :: atomic{ cnt>=MAXDELIV } -> DIE(d_step{ st=DEADING; own=me })
        :: atomic{ cnt<MAXDELIV } ->
#ifdef NOCOUNT
           DIE(d_step{ st=TAKEN; own=me })
#else
           DIE(d_step{ st=TAKEN; own=me; cnt++ })
#endif
        fi
     :: atomic{ st==DEADING && !alive[own] } -> DIE(own=me)
     :: atomic{ st==DONE || ((st==TAKEN||st==DEADING) && alive[own]) }
     fi;
     UNLOCK;
     if
     :: atomic{ st==TAKEN && own==me } ->
        atomic{ started++; assert(started<=MAXDELIV) };
        DIE(skip);                                   /* user code */
        LOCK;
        if :: atomic{ st==TAKEN && own==me } -> if :: DIE(st=DONE; finished++) :: DIE(st=READY) fi  /* ack or nack */
           :: atomic{ !(st==TAKEN && own==me) } -> assert(false) fi;
        UNLOCK
     :: atomic{ st==DEADING && own==me } ->          /* not in the turn: the other queue has its own */
#ifdef ACKFIRST
        DIE(st=DONE); DIE(deadq++)
#else
#ifndef NOLOOKUP
        DIE(c=deadq);
        if :: atomic{ c==0 } -> DIE(deadq++) :: atomic{ c>0 } fi;
#else
        DIE(deadq++);
#endif
        LOCK; if :: atomic{ st==DEADING && own==me } -> DIE(st=DONE) :: atomic{ !(st==DEADING && own==me) } fi; UNLOCK
#endif
     :: atomic{ own!=me || st==READY || st==DONE }
     fi
  od; goto gone;
die: skip; atomic{ alive[me]=0 }; goto again;
gone: skip }
active proctype Final(){ timeout -> assert(st!=DONE || finished+deadq==1); assert(deadq<=1 && finished<=1); assert(st==DONE || nextinc>=7) }
init{ atomic{ run Wk(); run Wk() } }
