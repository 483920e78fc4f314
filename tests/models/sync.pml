/* SPDX-License-Identifier: MIT */
/* sync.pml - the durable mark with several syncers. S is held over the whole sync; a syncer may be killed at any step.
 * An I/O error is reported once for the file (fresh descriptors; errseq "seen") and makes the data of that moment lost.
 * Controls: -DFLAG  the released dir_dirty flag, cleared before the directory is synced
 *           -DNOPROVE  who takes S over from a dead syncer goes on as if nothing was
 *           -DNOPOISON_UNDER_S  poison stored after S is given back */
#ifndef MAXD
#define MAXD 1
#endif
byte S; bool dead[4]; byte deaths;
byte next=1, mark, dirgen, dirsynced, dirdisk; bool dirty, poison, err, lost; byte lostfrom=9;
bool io_done; byte ondisk;
#define DIE(x) atomic{ if :: x :: deaths<MAXD -> deaths++; dead[me]=1; goto gone fi }
active proctype Log(){                       /* appends; the second record comes after a roll: its segment has a new name */
  dirgen++; dirty=1; next=2; next=3 }
active proctype Disk(){ do :: atomic{ !io_done && next>ondisk -> io_done=1; lost=1; err=1; lostfrom=ondisk } :: break od }
proctype Sy(byte me){ byte r,snap,dg,dd; bool unk,bad;
  do :: r<2 ->
    unk=0; bad=0;
    if :: DIE(S==0 -> S=me) :: DIE(S!=0 && dead[S] -> S=me; unk=1) fi;
    if :: atomic{ poison } -> DIE(S=0); goto gone :: atomic{ !poison } fi;
#ifndef NOPROVE
    if :: atomic{ unk } -> DIE(if :: lost -> bad=1 :: else fi) :: atomic{ !unk } fi;   /* O_DIRECT, or an fd older than that sync */
#endif
    DIE(snap=next);
    DIE(if :: err -> bad=1; err=0 :: !err && !lost -> ondisk=snap :: else fi);              /* data: fsync of all up to snap */
#ifdef FLAG
    DIE(dd=dirty; dirty=0); if :: atomic{ dd } -> DIE(dirdisk=dirgen) :: atomic{ !dd } fi;
#else
    DIE(dg=dirgen); if :: atomic{ dirsynced!=dg } -> DIE(dirdisk=dirgen); DIE(dirsynced=dg) :: atomic{ dirsynced==dg } fi;
#endif
    if
    :: atomic{ bad } ->
#ifdef NOPOISON_UNDER_S
       DIE(S=0); DIE(poison=1); goto gone
#else
       DIE(poison=1); DIE(S=0); goto gone
#endif
    :: atomic{ !bad } ->
       if :: atomic{ snap>mark } -> DIE(mark=snap; assert(mark<=lostfrom); assert(mark<2 || dirdisk>=1)) :: atomic{ snap<=mark } fi;
       DIE(S=0)
    fi; r++
  :: r>=2 -> break od;
gone: skip }
init { atomic { run Sy(1); run Sy(2); run Sy(3) } }
