#!/bin/bash
# The agent's camera path beside `ffmpeg -c copy` on the same 1080p25 stream at the same time.
#
#   tests/bench-camera.sh [ROUNDS] [SECONDS]        default: 3 rounds of 60 s
#
# Both record 10 s fragmented MP4; ours also makes a still each 30 s (the agent's default). In each
# round both run, the one that starts first changes, the first seconds are not counted. CPU is user
# and system time of /proc/PID/stat per minute of video; memory is of the end of the round: RSS counts
# shared libraries in full, PSS by share. Prints one line of key=value pairs, medians over the rounds.
#
# SCC_CAMERA_RUN: the program to measure; default: built here in release mode.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-3} seconds=${2:-60} warmup=8
program=${SCC_CAMERA_RUN:-}
if [ -z "$program" ]; then
    cargo build --quiet --release -p scc-tests --bin camera-run
    program=${CARGO_TARGET_DIR:-target}/release/camera-run
fi
work=$(mktemp -d)
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

footage=$(tests/footage.sh "${SCC_FOOTAGE_CACHE:-${CARGO_TARGET_DIR:-target}/footage}" 1080)
mkfifo "$work/commands" "$work/answers"
/usr/bin/python3 tests/stand-in/camera/camera.py 0 "a=$footage" <"$work/commands" >"$work/answers" &
pids+=($!)
exec 3>"$work/commands" 4<"$work/answers"
read -r _ port <&4
url=rtsp://127.0.0.1:$port/a

ours() {
    mkdir "$work/ours-$1"
    "$program" "$url" "$work/ours-$1" 30 10 2>"$work/ours.log" 3>&- 4<&- &
    ours=$!
    pids+=("$ours")
}
theirs() {
    mkdir "$work/ffmpeg-$1"
    ffmpeg -nostdin -v error -rtsp_transport tcp -timeout 5000000 -allowed_media_types video -i "$url" \
        -c copy -f segment -segment_time 10 -reset_timestamps 1 -segment_format mp4 \
        -segment_format_options movflags=frag_keyframe+empty_moov+default_base_moof \
        "$work/ffmpeg-$1/%05d.mp4" 2>"$work/ffmpeg.log" 3>&- 4<&- &
    theirs=$!
    pids+=("$theirs")
}
# clock ticks that the processes have used
ticks() {
    local sum=0 pid rest
    for pid in "$@"; do
        rest=$(<"/proc/$pid/stat")
        # shellcheck disable=SC2086
        set -- ${rest##*) }
        sum=$((sum + ${12} + ${13}))
    done
    echo "$sum"
}
kib() { awk -v key="$2:" '$1 == key { print $2 }' "/proc/$1/smaps_rollup"; }
mib() { awk -v n="$1" 'BEGIN { printf "%.1f", n / 1024 }'; }
median() { sort -g | awk '{ v[NR] = $1 } END { printf "%.2f", NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
hz=$(getconf CLK_TCK)
per_minute() { awk -v t="$1" -v hz="$hz" -v s="$seconds" 'BEGIN { printf "%.3f", t / hz * 60 / s }'; }

for round in $(seq "$rounds"); do
    if ((round % 2)); then ours "$round"; theirs "$round"; else theirs "$round"; ours "$round"; fi
    sleep "$warmup"
    read -r child _ <"/proc/$ours/task/$ours/children" || child=$(cat /proc/"$ours"/task/*/children | head -n 1)
    child=${child%% *}
    before=($(ticks "$ours") $(ticks "$child") $(ticks "$theirs"))
    sleep "$seconds"
    after=($(ticks "$ours") $(ticks "$child") $(ticks "$theirs"))
    per_minute $((after[0] + after[1] - before[0] - before[1])) >>"$work/cpu-ours"; echo >>"$work/cpu-ours"
    per_minute $((after[2] - before[2])) >>"$work/cpu-ffmpeg"; echo >>"$work/cpu-ffmpeg"
    for what in Rss Pss; do
        mib "$(kib "$child" $what)" >>"$work/$what-child"; echo >>"$work/$what-child"
        mib "$(kib "$ours" $what)" >>"$work/$what-parent"; echo >>"$work/$what-parent"
        mib "$(kib "$theirs" $what)" >>"$work/$what-ffmpeg"; echo >>"$work/$what-ffmpeg"
    done
    kill "$ours" "$theirs"
    wait "$ours" "$theirs" 2>/dev/null || true
done
segments=$(find "$work" -path '*/ours-*' -name '*.mp4' | wc -l)
stills=$(find "$work" -path '*/ours-*' -name '*.jpg' | wc -l)
if [ "$segments" -eq 0 ] || [ "$stills" -eq 0 ]; then
    cat "$work/ours.log" >&2
    echo "bench-camera.sh: ours recorded nothing" >&2
    exit 1
fi
m() { median <"$work/$1"; }
ratio=$(awk -v a="$(m cpu-ours)" -v b="$(m cpu-ffmpeg)" 'BEGIN { printf "%.2f", b ? a / b : 0 }')
echo "bench=camera video=1080p25 rounds=$rounds seconds=$seconds" \
    "agent_cpu_s_per_min=$(m cpu-ours) ffmpeg_cpu_s_per_min=$(m cpu-ffmpeg) cpu_ratio=$ratio" \
    "reader_rss_mib=$(m Rss-child) reader_pss_mib=$(m Pss-child)" \
    "agent_rss_mib=$(m Rss-parent) agent_pss_mib=$(m Pss-parent)" \
    "ffmpeg_rss_mib=$(m Rss-ffmpeg) ffmpeg_pss_mib=$(m Pss-ffmpeg)" \
    "segments=$segments stills=$stills"
