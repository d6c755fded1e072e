//! Whether FFmpeg's own programs can read what was recorded.

use std::io::Write as _;
use std::process::Command;

use scc_common::record::Segment;

pub(super) fn ffprobe(bytes: &[u8], args: &[&str]) -> String {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-of", "csv=p=0"])
        .args(args)
        .arg(file.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && said.is_empty(),
        "ffprobe: {said}"
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Decodes every frame, and counts the errors by failing on the first.
pub(super) fn decodes(mp4: &[u8]) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(mp4).unwrap();
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-xerror", "-i"])
        .arg(file.path())
        .args(["-f", "null", "-"])
        .output()
        .unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

pub(super) fn assert_playable(segment: &Segment) {
    let frames = ffprobe(&segment.mp4, &["-show_entries", "packet=flags,dts_time"]);
    let frames: Vec<(f64, bool)> = frames
        .lines()
        .map(|line| {
            let mut fields = line.split(',');
            let at = fields.next().unwrap().parse().unwrap();
            (at, fields.next().unwrap().starts_with('K'))
        })
        .collect();
    assert_eq!(frames.len(), usize::try_from(segment.frames).unwrap());
    assert!(frames[0].1, "a segment begins with a keyframe");
    assert!(frames.windows(2).all(|w| w[0].0 < w[1].0), "time rises");
    let duration: f64 = ffprobe(&segment.mp4, &["-show_entries", "format=duration"])
        .parse()
        .unwrap();
    let told = f64::from(segment.duration_ms) / 1_000.0;
    assert!(
        (duration - told).abs() <= told * 0.01 + 0.04,
        "{duration} s, told {told} s"
    );
    decodes(&segment.mp4);
}
