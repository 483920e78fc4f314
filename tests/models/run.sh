#!/bin/sh
# SPDX-License-Identifier: MIT
# run.sh - every model and every control. "ok" must end with errors: 0, "bad" with errors: 1. About 12 min and 8 GB for all; `run.sh quick` 1 min.
one() { # ok|bad name file "spin -D" "gcc -D" "pan flags"
  d=$(mktemp -d); (cd $d && spin -a $4 $OLDPWD/$3 >log 2>&1 && gcc -O2 $5 pan.c -o pan 2>>log && ./pan -m400000 -w26 $6 >out 2>&1)
  e=$(grep -o 'errors: [0-9]*' $d/out); s=$(grep 'states, stored' $d/out); w=$(grep -m1 'pan:1' $d/out)
  case "$1$e" in "okerrors: 0"|"baderrors: 1") r=pass;; *) r=FAIL;; esac; echo "$r $1 $2: $e;$s; $w"; rm -rf $d; [ $r = pass ] || failed=1; }
failed=0
cd "$(dirname "$0")" || exit 1
T="-DNOPS=2 -DMAXD=1 -DLIVES=3"; U="-DNOPS=2 -DMAXD=2 -DLIVES=4"; S="-DSAFETY -DCOLLAPSE"
one ok  wake wake.pml "" "$S" ""
one ok  wake-deaths-timeout wake.pml "-DMAXD=2 -DTIMEOUT" "$S" ""
one bad wake-deaths-no-timeout wake.pml "-DMAXD=1" "$S" ""
one bad wake-slept-drops-WAITERS wake.pml "-DKEEP=0" "$S" ""
one ok  power power.pml "" "$S" -E
one bad power-repair-keeps-epoch power.pml -DNOEPOCH "$S" -E
one ok  sync sync.pml -DMAXD=2 "$S" -E
for c in FLAG NOPROVE NOPOISON_UNDER_S; do one bad sync-$c sync.pml -D$c "$S" -E; done
one ok  group group.pml "-DMAXD=1" "$S" "-w26 -E"
for c in NOLOOKUP ACKFIRST NOCOUNT PLAINTAKE PLAINRECLAIM FLOORFIRST; do one bad group-$c group.pml "-DMAXD=2 -D$c" "$S" "-w26 -E"; done
for c in STATEONLY EARLYCELL; do one bad group-$c group.pml "-DMAXD=0 -D$c" "$S" "-w26 -E"; done
for c in FIRST_FIRST INTENT_LATE CLEAR_EARLY ZERO_ONLY END_FIRST NOINC TWOSTORES LEAVE_EARLY; do one bad turn-$c turn.pml "$U -DC_$c" "$S" ""; done
one bad turn-NOINC_NOLOOK turn.pml "$T -DC_NOINC -DC_NOLOOK" "$S" ""
one bad turn-NOJOIN_NOREADY turn.pml "$U -DC_NOJOINLOCK -DC_NOREADY" "$S" ""
one bad turn-SLOTNAME_PREP_EARLY turn.pml "-DNOPS=3 -DMAXD=0 -DLIVES=2 -DKEEPER -DC_SLOTNAME -DC_PREP_EARLY" "$S" ""
one bad turn-v1-NOREADY turn.pml "$T -DXRUNS=1 -DC_NOREADY" "$S" ""
one bad turn-v1-TRUST turn.pml "$T -DXRUNS=1 -DC_TRUST" "$S" ""
one ok  turn turn.pml "$T" "$S" ""
one ok  turn-keeper turn.pml "$T -DKEEPER" "$S" ""
one ok  turn-no-join-lock turn.pml "$T -DC_NOJOINLOCK" "$S" ""
[ "$1" = quick ] && exit $failed
one ok  turn-progress turn.pml "$T" "-DNP -DNFAIR=4 -DCOLLAPSE" "-l -f"
one ok  turn-v1-fastopen turn.pml "$T -DXRUNS=1 -DFASTOPEN" "$S" ""
one ok  turn-v1-2deaths turn.pml "$U -DXRUNS=1" "-DSAFETY -DHC4" ""
one ok  turn-3-writers turn.pml "-DNW=3 -DNOPS=2 -DMAXD=1 -DLIVES=4" "-DSAFETY -DHC4" ""
one ok  turn-big turn.pml "-DNOPS=3 -DMAXD=2 -DLIVES=4" "-DSAFETY -DHC4" ""
exit $failed
