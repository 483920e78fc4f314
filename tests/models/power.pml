/* SPDX-License-Identifier: MIT */
/* power.pml - what a power cut may bring back after a death in a turn was repaired in memory (same epoch).
 * Two cells, each on its own page; the kernel writes pages back whenever it likes. Writer A places a batch of two and
 * may die; B repairs (zeroes what was not published), appends one record; power fails; recovery reads the disk by
 * FORMAT.md (seq dense, epoch never down, commit set). Property: what recovery keeps is a prefix of what was ever
 * published: an id that no reader can have seen must not be in it.   -DNOEPOCH: the brief (epoch not raised by a repair) */
byte mid[2], mep[2], did[2], dep[2]; bool mc[2], dc[2];   /* memory and disk: id, epoch, commit word */
byte ep=1, bp; bool published[4]; bool Adone, off; byte metaE=1;
#define RESERVE 4
active proctype A(){
  mid[0]=1; mep[0]=ep; mid[1]=2; mep[1]=ep; mc[1]=1;
  if :: atomic{ mc[0]=1; published[1]=1; published[2]=1 } :: skip fi;   /* or dies here */
  Adone=1 }
active proctype B(){ Adone && !off;
  if
  :: mc[0] -> bp=2                                       /* published: nothing to zero */
  :: else -> 
#ifndef NOEPOCH
     ep++;                                               /* from the reserve that the opening put on disk: no sync here */
#endif
     mc[1]=0; mid[1]=0; mid[0]=0;
     mid[0]=3; mep[0]=ep; atomic{ mc[0]=1; published[3]=1 }
  fi }
active proctype Disk(){ byte i,e; bit j;
  do :: !off -> if :: j=0 :: j=1 fi; d_step{ did[j]=mid[j]; dep[j]=mep[j]; dc[j]=mc[j] }
     :: off=1; break od; skip;
  d_step{ /* recovery */
    i=0; e=0;
    do :: i<2 && dc[i] && dep[i]>=e -> assert(published[did[i]]); 
          if :: i==1 -> assert(!(did[0]==3 && did[1]==2)) :: else fi;
          e=dep[i]; i++ :: else -> break od } }
