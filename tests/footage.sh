#!/bin/sh
# Encodes Debian's vtest.avi (opencv-doc: real pedestrians, 768x576) once, as a camera would send it.
#
#   tests/footage.sh FOLDER [768|1080]...     prints the files, one a line
#
# 768: 768x576, 25 fps, 0.7 Mbit/s.  1080: 1920x1080, 25 fps, 4 Mbit/s.  Both: H.264 Main, a keyframe
# every 50 frames, no B-frames, no sound, 79.5 s, raw Annex B with an access unit delimiter before
# each picture. A file that is there is not made again.
set -eu
folder=${1:?usage: footage.sh FOLDER [768|1080]...}
shift
[ $# -gt 0 ] || set -- 768
source=${SCC_FOOTAGE:-/usr/share/doc/opencv-doc/examples/data/vtest.avi}
if [ ! -r "$source" ]; then
    echo "footage.sh: $source is missing; run: apt-get install opencv-doc" >&2
    exit 1
fi
mkdir -p "$folder"
for size in "$@"; do
    case $size in
        768) scale=768:576 rate=700k ;;
        1080) scale=1920:1080 rate=4000k ;;
        *) echo "footage.sh: $size is neither 768 nor 1080" >&2; exit 2 ;;
    esac
    file=$folder/vtest-$size.h264
    if [ ! -s "$file" ]; then
        # under a name of its own until it is whole: several may ask at once
        part=$(mktemp "$folder/.footage-XXXXXX")
        nice ffmpeg -nostdin -v error -y -i "$source" -an -vf "scale=$scale,fps=25" \
            -c:v libx264 -preset veryfast -profile:v main -pix_fmt yuv420p -bf 0 \
            -g 50 -keyint_min 50 -sc_threshold 0 -b:v "$rate" -maxrate "$rate" -bufsize "$rate" \
            -x264-params aud=1:repeat-headers=1 -f h264 "$part"
        mv "$part" "$file"
    fi
    echo "$file"
done
