#!/bin/bash
# Fuzzes each target in turn. `make fuzz` calls it; see docs/developer.md.
#
#   MINUTES=10            how long each target runs
#   TARGETS="a b"         only these
#   KEEP=1                minimise what was found into the repository's corpus: 200 inputs of 256 bytes at most
#
# Begins with `*/fuzz/seeds` (valid messages) and `*/fuzz/corpus` (what earlier runs found); what is new
# grows in target/fuzz-corpus. No nightly compiler: coverage comes from a pass that the stable one has,
# and there is no address sanitizer, because the decoders contain no unsafe code. An input that
# panics, hangs for 10 s or takes more than 1 GB stays in */fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/.."
minutes=${MINUTES:-10}
work=$PWD/target/fuzz-corpus
target_dir=$PWD/target/fuzz-run

export PATH="$HOME/.cargo/bin:$PATH"
command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --version 0.13.2 --locked

findings_in_all=0
for manifest in hub/fuzz agent/fuzz; do
  for source in "$manifest"/fuzz_targets/*.rs; do
    target=$(basename "$source" .rs)
    case " ${TARGETS:-$target} " in *" $target "*) ;; *) continue ;; esac
    corpus=$PWD/$manifest/corpus/$target
    seeds=$PWD/$manifest/seeds/$target
    artifacts=$PWD/$manifest/artifacts/$target
    log=$work/$target.log
    mkdir -p "$work/$target" "$corpus" "$seeds" "$artifacts"
    cargo fuzz build -s none --fuzz-dir "$manifest" --target-dir "$target_dir" "$target" >"$log" 2>&1 ||
      { cat "$log" >&2; exit 1; }
    before=$(find "$artifacts" -type f 2>/dev/null | wc -l)
    began=$SECONDS
    cargo fuzz run -s none --fuzz-dir "$manifest" --target-dir "$target_dir" "$target" \
      "$work/$target" "$corpus" "$seeds" -- \
      -max_total_time=$((minutes * 60)) -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 >"$log" 2>&1 ||
      true
    seconds=$((SECONDS - began))
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -1)
    edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -1)
    findings=$(($(find "$artifacts" -type f 2>/dev/null | wc -l) - before))
    # a run that did not even begin is no run without a finding
    if [ -z "$executions" ] || [ -z "$edges" ]; then
      tail -50 "$log" >&2
      echo "fuzz target=$target did not run: see $log" >&2
      exit 1
    fi
    echo "fuzz target=$target executions=$executions edges=$edges seconds=$seconds findings=$findings"
    findings_in_all=$((findings_in_all + findings))
    if [ -n "${KEEP:-}" ]; then
      rm -rf "$work/$target.least"
      mkdir "$work/$target.least"
      cargo fuzz run -s none --fuzz-dir "$manifest" --target-dir "$target_dir" "$target" \
        "$work/$target.least" "$seeds" "$corpus" "$work/$target" -- -set_cover_merge=1 -use_counters=0 -max_len=256 >>"$log" 2>&1
      rm -rf "$corpus"
      mkdir "$corpus"
      # the longest say the most; a few hundred bring the next run to where this one was within seconds
      for input in $(find "$work/$target.least" -type f -printf '%s %p\n' | sort -rn | sed -n '1,200s/^[0-9]* //p'); do
        # a seed is there already
        if ! find "$seeds" -type f -exec cmp -s "$input" {} \; -print | grep -q .; then cp "$input" "$corpus/"; fi
      done
    fi
    rmdir --ignore-fail-on-non-empty "$corpus" "$artifacts"
  done
done
if [ "$findings_in_all" -gt 0 ]; then
  echo "an input in */fuzz/artifacts shows each finding; mend it and keep the input in the corpus and in a unit test" >&2
  exit 1
fi
