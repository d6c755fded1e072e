#!/bin/bash
# The long forms of the fault tests, one after the other: `make faults`.
#
#   SCALE=1     divides every number of rounds, for a look (SCALE=20)
#   SEED=1      of the kills; the others print their own
#   PARTS="a b" only these
#
# Each part is a test that fails when a record is lost, doubled or missing without being announced. The
# kills of whole processes also count, and their numbers stand in the last line:
#   faults rounds=… lost=… duplicates=… unannounced_gaps=… failed=…
# What this does not prove is said in each test: a kill is not a power cut, and the power cuts are
# those of a file system of the tests' own, not of a card.
set -uo pipefail
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}
scale=${SCALE:-1}
logs=target/faults
mkdir -p "$logs"
rounds=0 failed=()

# part NAME ROUNDS COMMAND…: what it prints goes to a log; one line is said about it
part() {
    local name=$1 n=$2 began=$SECONDS
    shift 2
    case " ${PARTS:-$name} " in *" $name "*) ;; *) return ;; esac
    # a filter that finds no test, and one that skips itself, show nothing
    if "$@" >"$logs/$name.log" 2>&1 && ! grep -q 'SKIPPED' "$logs/$name.log" &&
        { [[ $* != *" test "* ]] || grep -q '^test result: ok\. [1-9]' "$logs/$name.log"; }; then
        echo "passed  $name rounds=$n seconds=$((SECONDS - began))"
        rounds=$((rounds + n))
    else
        echo "FAILED  $name, see $logs/$name.log"
        failed+=("$name")
    fi
}
some() { echo $(($1 / scale > 0 ? $1 / scale : 1)); }
agent=("$cargo" test --locked -p scc-agent --lib -- --nocapture)

n=$(some 20000)
SCC_POWER_CASES=$n part power-cuts "$n" "${agent[@]}" --exact buffer::tests::power::what_was_accepted_survives_a_power_cut_after_any_change
# each of its 22 named steps is aimed at once
n=$(some 200)
[ "$n" -ge 22 ] || n=22
SCC_KILL_ROUNDS=$n part kills-of-the-buffer "$n" "${agent[@]}" buffer::tests::kill::
[ "$scale" != 1 ] || SCC_SWEEP=all part corruption 1 "${agent[@]}" buffer::tests::sweep::
part weight 1 "${agent[@]}" --include-ignored --test-threads 1 buffer::tests::weight::
n=$(some 500)
SCC_CRASH_ROUNDS=$n part crashes-of-the-hub "$n" "$cargo" test --locked -p scc-hub --lib -- ingest::tests
n=$(some 20)
SCC_HUB_RESTARTS=$n part restarts-of-the-hub "$n" "$cargo" test --locked -p scc-tests --test delivery -- cuts_and_restarts_of_the_hub_lose_and_double_nothing
part bad-database 1 "$cargo" test --locked -p scc-hub --test bad_database
n=$(some 100000)
SCC_MUTANTS=$n SCC_CHURN=$(some 10000) part hostile-peers "$n" "$cargo" test --locked -p scc-hub --test hostile -- --nocapture
n=$(some 50)
part kills-of-everything "$n" "${MAKE:-make}" --no-print-directory kills ROUNDS="$n" SEED="${SEED:-1}"

counted() { sed -n "s/^rounds=.* $1=\([0-9]*\).*/\1/p" "$logs/kills-of-everything.log" | tail -1; }
if [ -n "${PARTS:-}" ] && [[ " $PARTS " != *" kills-of-everything "* ]]; then
    echo "faults rounds=$rounds lost=not_counted duplicates=not_counted unannounced_gaps=not_counted failed=${#failed[@]}"
    [ ${#failed[@]} = 0 ]
    exit
fi
lost=$(counted missing) doubled=$(counted duplicates_stored) unannounced=$(counted unannounced)
echo "faults rounds=$rounds lost=${lost:-?} duplicates=${doubled:-?} unannounced_gaps=${unannounced:-?} failed=${#failed[@]}"
[ ${#failed[@]} = 0 ] && [ "${lost:-1}${doubled:-1}${unannounced:-1}" = 000 ]
