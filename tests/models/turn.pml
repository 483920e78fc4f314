/* SPDX-License-Identifier: MIT */
/* turn.pml - several writers taking turns (docs/FORMAT.md, section 12).
 *
 * Every store to shared memory, every CAS and every kernel call of a writer is one step P(...), and before each of them
 * the writer may be SIGKILLed (MAXD deaths in all). Its kernel locks go one by one, some time AFTER its last store.
 * A stop (SIGSTOP) is a long delay: all interleavings are explored. A writer that died or left comes back as a newcomer
 * in the lowest free slot (LIVES joins in all), so slots are re-used. X is an exclusive writer of the released version.
 *
 * run: ./run.sh (all), ./run.sh quick
 * controls: each -DC_xxx breaks one rule; every one of them must give a counterexample
 */
#ifndef NOPS
#define NOPS 3          /* appends begun in all */
#endif
#ifndef MAXD
#define MAXD 2
#endif
#ifndef NW
#define NW 2
#endif
#ifndef LIVES
#define LIVES 4
#endif
#ifndef XRUNS
#define XRUNS 0         /* how often the exclusive v1 writer comes */
#endif
#ifndef B1
#define B1 2            /* batch sizes of odd and even ops */
#define B2 1
#endif
#define NSLOT NW
#define CAP 2           /* records per segment; one more cell keeps room for END */
#define NSEG 5
#define CELLS 3
#define ROLL 15         /* value of intent_end that means: a roll */
#define ENDID 60
#define XID 50
#define C(s,i) ((s)*CELLS+(i))
#ifdef C_NOINC
#define WORD(slot,i) ((slot)+1)
#define INCBAD(w) false
#else
#define WORD(slot,i) ((i)*8+(slot)+1)
#define INCBAD(w) (inc[SLOT(w)]!=(w)/8)
#endif
#define SLOT(w) (((w)%8)-1)
#define DEAD(w) (slotlk[SLOT(w)]==0 || INCBAD(w))   /* F_OFD_GETLK, then the incarnation in the slot's line */

#define P(x) atomic{ if :: x :: deaths<MAXD -> deaths++; goto die fi }
#define PD(x) P(d_step{ x })

#ifdef C_SLOTNAME
#define MKNAME f=slot
#else
#define MKNAME f=ntmp; ntmp++
#endif
/* ---- kernel ---- */
byte slotlk[NSLOT];     /* byte 2^40+slot: holder+1 */
byte ex, sh, joinlk;    /* byte 0: exclusive holder+1, number of shared; join byte: holder+1 */
byte deaths, lives;
/* ---- files ---- */
bool segf[NSEG]; byte segbase[NSEG]; bool sealed[NSEG];
byte id[NSEG*CELLS]; byte sq[NSEG*CELLS]; bool com[NSEG*CELLS];
byte tmp[8]; byte ntmp; /* next.<n>.tmp: 0 none 1 being made 2 complete */
byte meta_epoch = 1;
/* ---- control words ---- */
byte owner, ready, inc[NSLOT], ninc, prep, intent;
bit g; byte tl[2];      /* the commit word is the generation: one store */
byte stseg[2], stnext[2];
/* ---- ghosts ---- */
byte nops, holder; bool acked[NOPS+1]; byte seen[10]; byte xdone, xin;

#define BATCH(op) (B2+((op)%2)*(B1-B2))
#define SEG stseg[g]
#define NEXT stnext[g]
#define TAIL tl[g]

#ifdef C_TWOSTORES
#define SEQOK && sq[C(SEG,TAIL+n)]==NEXT+n
#else
#define SEQOK
#endif
#ifdef C_TWOSTORES      /* the brief: next_seq, then tail, in place; repair compares seq with next_seq strictly */
inline commit_state(SS,TT,NN){ PD(stseg[g]=SS); PD(stnext[g]=NN); PD(tl[g]=TT) }
#else
inline commit_state(SS,TT,NN){ PD(stseg[1-g]=SS); PD(stnext[1-g]=NN); PD(tl[1-g]=TT); PD(g=1-g) }
#endif
inline put_end(SS,TT){ PD(id[C(SS,TT)]=ENDID; sq[C(SS,TT)]=NEXT); PD(com[C(SS,TT)]=1) }
inline enter_turn(){ d_step{ assert(holder==0 && ex==0 && xin==0); holder=me+1 } }
#define LEAVE_TURN holder=0; owner=0

inline repair(){
  if
  :: atomic{ intent==0 }
  :: atomic{ intent==ROLL } ->
     if
     :: atomic{ TAIL==0 || !segf[SEG+1] }                 /* moved already, or not renamed */
     :: atomic{ else } -> put_end(SEG,TAIL); PD(sealed[SEG]=1); commit_state(SEG+1,0,NEXT)
     fi;
#ifndef C_PREPSTALE
     PD(if :: prep>=64 && tmp[prep-64]!=2 -> prep=0 :: else fi);
#endif
     PD(intent=0)
  :: atomic{ intent!=0 && intent!=ROLL } ->
#ifdef C_ZERO_ONLY
     n=0;
#else
     d_step{ n=0; do :: TAIL+n<intent && com[C(SEG,TAIL+n)] SEQOK -> n++ :: else -> break od };
#endif
     t=TAIL+n;
     do :: atomic{ t<intent } -> PD(com[C(SEG,t)]=0); PD(id[C(SEG,t)]=0; sq[C(SEG,t)]=0; t++) :: atomic{ t>=intent } -> break od;
     if :: atomic{ n>0 } -> commit_state(SEG,TAIL+n,NEXT+n) :: atomic{ n==0 } fi;
     PD(intent=0)
  fi; d_step{ n=0; t=0 }; skip
}

/* find the end by reading: f segment, n cells of it */
inline scan(){
  f=0; n=0;
  do
  :: n<CELLS && com[C(f,n)] && id[C(f,n)]!=ENDID -> n++
  :: n<CELLS && n>0 && f<NSEG-1 && segf[f+1] && segbase[f+1]==segbase[f]+n && (!com[C(f,n)] || id[C(f,n)]==ENDID) -> f++; n=0
  :: else -> break
  od }
inline recover(){                       /* with the exclusive lock */
  d_step{ scan(); t=0 };
  do :: atomic{ t<f } -> skip; d_step{ k=0; do :: k<CELLS && com[C(t,k)] && id[C(t,k)]!=ENDID -> k++ :: else -> break od };
        if :: atomic{ !com[C(t,k)] } -> PD(id[C(t,k)]=ENDID; sq[C(t,k)]=segbase[t]+k); PD(com[C(t,k)]=1) :: atomic{ com[C(t,k)] } fi;
        PD(sealed[t]=1; t++)
     :: atomic{ t>=f } -> break od;
  t=n;
  do :: atomic{ t<CELLS } -> PD(com[C(f,t)]=0; id[C(f,t)]=0; sq[C(f,t)]=0; t++) :: atomic{ t>=CELLS } -> break od; skip;
  d_step{ k=0; t=0 }; skip
}

proctype W(byte me){
  byte slot, my, v, op, n, t, k, f; bool first, s2;
again: skip;
  d_step{ n=0;t=0;k=0;f=0;v=0;op=0;first=0;my=0;slot=0 };
  if :: atomic{ lives<LIVES && nops<NOPS -> lives++ } :: atomic{ lives>=LIVES || nops>=NOPS } -> goto gone fi;
  /* ---------------- join */
#ifndef C_NOJOINLOCK
  P(joinlk==0 -> joinlk=me+1);
#endif
retry: skip;
  first=0;
  PD(if :: ex==0&&sh==0&&xin==0 -> ex=me+1; first=1 :: else fi);     /* F_WRLCK on byte 0 */
  if :: atomic{ !first } -> P(ex==0&&xin==0 -> sh++; s2=1) :: atomic{ first } fi;  /* F_RDLCK */
  if
#ifdef C_TRUST       /* a fast opening that believes the control words without comparing epochs */
  :: atomic{ first && ready!=0 }
  :: atomic{ first && ready==0 } ->
#else
#ifdef FASTOPEN      /* ... and one that compares them */
  :: atomic{ first && ready==meta_epoch }
  :: atomic{ first && ready!=meta_epoch } ->
#else
  :: atomic{ first } ->
#endif
#endif
     PD(ready=0);
     recover();
     PD(meta_epoch++);
     PD(intent=0); PD(owner=0); PD(prep=0);
     commit_state(f,n,segbase[f]+n);
     PD(ready=meta_epoch; n=0; f=0);
  :: atomic{ !first } ->
#ifndef C_NOREADY
     if :: atomic{ ready!=meta_epoch } -> atomic{ sh--; s2=0 }; goto retry :: atomic{ ready==meta_epoch } fi
#else
     skip
#endif
  fi;
  P(d_step{ slot=0; do :: slot<NSLOT && slotlk[slot]!=0 -> slot++ :: else -> break od; if :: slot<NSLOT -> slotlk[slot]=me+1 :: else fi });
  if :: atomic{ slot==NSLOT } -> 
     if :: atomic{ s2 -> sh--; s2=0 } :: atomic{ !s2 && ex==me+1 -> ex=0 } fi;
     atomic{ if :: joinlk==me+1 -> joinlk=0 :: else fi }; goto again
     :: atomic{ slot<NSLOT } fi;
#ifdef C_NOINC
  d_step{ my=WORD(slot,0) };
#else
  PD(ninc++; inc[slot]=ninc; my=WORD(slot,ninc));
#endif
  if :: atomic{ first } -> P(ex=0; sh++; s2=1) :: atomic{ !first } fi;     /* downgrade: one conversion */
#ifndef C_NOLOOK
  v=owner;
  if :: atomic{ v!=0 && SLOT(v)==slot } ->
        if :: P(owner==v -> owner=my); enter_turn(); repair(); PD(LEAVE_TURN)
           :: atomic{ owner!=v } fi
     :: atomic{ v==0 || SLOT(v)!=slot } fi;
#endif
  v=prep;
  if :: atomic{ v!=0 && v<64 && SLOT(v)==slot } -> PD(if :: prep==v -> prep=0 :: else fi) :: atomic{ v==0||v>=64||SLOT(v)!=slot } fi;
  v=0;
  atomic{ if :: joinlk==me+1 -> joinlk=0 :: else fi };

  /* ---------------- appends */
  do
  :: atomic{ nops<NOPS && op==0 -> nops++; op=nops };
#ifdef KEEPER           /* the next file is made ahead, without the turn */
     if :: P(d_step{ prep==0 -> prep=my }); PD(MKNAME; tmp[f]=1); PD(tmp[f]=2); PD(if :: prep==my -> prep=64+f :: else fi; f=0) :: skip fi;
#endif
lock: skip;
     if
     :: P(owner==0 -> owner=my; enter_turn())
     :: atomic{ owner!=0 -> v=owner };
        /* sleeps; comes back when the word has changed, or when the kernel says (at one instant) that the owner is dead */
        if :: P(owner!=v -> v=0); goto lock :: P(DEAD(v)) fi;
        if :: P(owner==v -> owner=my; v=0; enter_turn()); repair()
           :: atomic{ owner!=v -> v=0 }; goto lock
        fi
     fi;
     if
     :: atomic{ TAIL+BATCH(op)>CAP } ->
        if
        :: atomic{ prep>=64 -> f=prep-64 }
        :: atomic{ prep<64 } ->             /* nothing prepared: never make it in the turn */
           PD(LEAVE_TURN);
           atomic{ v=prep; if :: v!=0 && v<64 && DEAD(v) -> k=1 :: v==0 -> k=1 :: else -> k=0 fi };
           if :: atomic{ k==1 } -> P(d_step{ if :: prep==v -> prep=my :: else -> k=0; v=prep+100 fi }) :: atomic{ k==0 } fi;
           if :: atomic{ k==1 } -> PD(MKNAME; tmp[f]=1); PD(tmp[f]=2); PD(if :: prep==my -> prep=64+f :: else fi)
              :: atomic{ k==0 } -> P(v>=64 || prep!=v || DEAD(v))
           fi; skip;
           d_step{ f=0; k=0; v=0 }; goto lock
        fi;
        if :: atomic{ tmp[f]==0 } -> PD(prep=0); PD(LEAVE_TURN); f=0; goto lock :: atomic{ tmp[f]!=0 } fi;
        PD(intent=ROLL);
        d_step{ assert(tmp[f]==2 && !segf[SEG+1]); segbase[SEG+1]=NEXT };
#ifdef C_END_FIRST
        put_end(SEG,TAIL); PD(segf[SEG+1]=1; tmp[f]=0);
#else
        
#ifdef C_PREP_EARLY
        PD(prep=0);
#endif
        PD(assert(tmp[f]==2); segf[SEG+1]=1; tmp[f]=0); put_end(SEG,TAIL);
#endif
        PD(prep=0); PD(sealed[SEG]=1); commit_state(SEG+1,0,NEXT); f=0
     :: atomic{ TAIL+BATCH(op)<=CAP }
     fi;
#ifndef C_INTENT_LATE
     PD(intent=TAIL+BATCH(op));
#endif
     do :: atomic{ n<BATCH(op) } -> d_step{ assert(!com[C(SEG,TAIL+n)] && id[C(SEG,TAIL+n)]==0) };
           PD(id[C(SEG,TAIL+n)]=op*2+n-1; sq[C(SEG,TAIL+n)]=NEXT+n; n++) :: atomic{ n>=BATCH(op) -> n=0 } -> break od;
#ifdef C_INTENT_LATE
     PD(intent=TAIL+BATCH(op));
#endif
#ifdef C_FIRST_FIRST
     PD(com[C(SEG,TAIL)]=1); if :: atomic{ BATCH(op)==2 } -> PD(com[C(SEG,TAIL+1)]=1) :: atomic{ BATCH(op)==1 } fi;
#else
     if :: atomic{ BATCH(op)==2 } -> PD(com[C(SEG,TAIL+1)]=1) :: atomic{ BATCH(op)==1 } fi; PD(com[C(SEG,TAIL)]=1);
#endif
#ifdef C_CLEAR_EARLY
     PD(intent=0); commit_state(SEG,TAIL+BATCH(op),NEXT+BATCH(op));
#else
     commit_state(SEG,TAIL+BATCH(op),NEXT+BATCH(op)); PD(intent=0);
#endif
     PD(LEAVE_TURN);
progress_ack: skip;
     d_step{ acked[op]=1; op=0 }
  :: atomic{ nops>=NOPS || MAXD==0 } -> break
  :: break                                   /* leaves early */
  od;
#ifdef C_LEAVE_EARLY
  P(owner==0 -> owner=my; enter_turn());
  P(slotlk[slot]=0); PD(LEAVE_TURN);
#else
  P(slotlk[slot]=0);
#endif
  atomic{ sh--; s2=0 };
  goto again;
die: skip;
  d_step{ if :: holder==me+1 -> holder=0 :: else fi };
  /* the kernel lets the locks go one by one, in any order */
  if
  :: atomic{ if :: s2 -> sh--; s2=0 :: else fi }; d_step{ t=0; do :: t<NSLOT -> if :: slotlk[t]==me+1 -> slotlk[t]=0 :: else fi; t++ :: else -> break od; t=0 }
  :: d_step{ t=0; do :: t<NSLOT -> if :: slotlk[t]==me+1 -> slotlk[t]=0 :: else fi; t++ :: else -> break od; t=0 }; atomic{ if :: s2 -> sh--; s2=0 :: else fi }
  fi;
  d_step{ if :: joinlk==me+1 -> joinlk=0 :: else fi; if :: ex==me+1 -> ex=0 :: else fi };
  goto again;
gone: skip
}

/* an exclusive writer of the released version: knows nothing of the control words; asks for the whole file */
proctype X(){ byte me,n,t,k,f;
  me=9;
again:
  do
  :: atomic{ xdone<XRUNS && nops<NOPS && ex==0 && sh==0 && joinlk==0 && slotlk[0]==0 && slotlk[1]==0 -> xin=1; xdone++ };
     assert(holder==0);
     recover();
     PD(meta_epoch++);
     if :: atomic{ n<CAP && segbase[f]+n<9 } -> PD(id[C(f,n)]=XID+xdone; sq[C(f,n)]=segbase[f]+n); PD(com[C(f,n)]=1) :: atomic{ n>=CAP || segbase[f]+n>=9 } fi;
     atomic{ xin=0; n=0; t=0; f=0; k=0 }
  :: atomic{ xdone>=XRUNS } -> break
  :: atomic{ nops==NOPS } -> break
  od; goto endx;
die: skip; xin=0; d_step{n=0;t=0;f=0;k=0}; goto again;
endx: skip }

proctype Reader(){ byte s,i,q,e;
end: do
  :: d_step{ com[C(s,i)] ->
     if :: id[C(s,i)]==ENDID -> assert(i>0 && sq[C(s,i)]==q && segf[s+1] && segbase[s+1]==q); s++; i=0
        :: else -> e=id[C(s,i)]; assert(e!=0); assert(sq[C(s,i)]==q);
                   assert(seen[q]==0||seen[q]==e); seen[q]=e;
                   if :: e<XID && BATCH((e+1)/2)==2 && e%2==1 -> assert(com[C(s,i+1)] && id[C(s,i+1)]==e+1) :: else fi;
                   i++; q++
     fi; e=0 }
  od }

/* when nobody can move any more: every acknowledged op is there once, dense, nothing else but finished ones */
proctype Final(){ byte s,i,q,j; byte cnt[NOPS+1];
  timeout -> d_step{
   assert(holder==0 && ex==0 && sh==0 && joinlk==0);
   s=0;i=0;q=0;
   do :: com[C(s,i)] && id[C(s,i)]==ENDID -> assert(segf[s+1]&&segbase[s+1]==q); s++; i=0
      :: com[C(s,i)] && id[C(s,i)]!=ENDID -> assert(sq[C(s,i)]==q); assert(seen[q]==0||seen[q]==id[C(s,i)]);
           if :: id[C(s,i)]<XID && id[C(s,i)]%2==1 -> cnt[(id[C(s,i)]+1)/2]++ :: else fi; i++; q++
      :: else -> break od;
   j=1; do :: j<=NOPS -> assert(cnt[j]<=1); assert(!acked[j]||cnt[j]==1); j++ :: else -> break od;
   j=0; do :: j<10 -> assert(seen[j]==0 || j<q); j++ :: else -> break od }
}

init { byte i; atomic{ segf[0]=1;
  i=0; do :: i<NW -> run W(i); i++ :: else -> break od; run Reader(); run Final();
#if XRUNS>0
  run X()
#endif
  } }
