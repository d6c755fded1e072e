//! The box's own measurements, as a source like any other.
//!
//! Whatever cannot be read (no sensor, no `/proc` in a container) is left out or zero; health never
//! fails. Once the supply was seen too weak, it is told until the program restarts: the alarm of the
//! kernel may be gone a second later, the weak supply is not.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use scc_common::record::{Content, Health, RecordBody};
use tokio::sync::watch;

use super::{Context, Source};
use crate::uplink::status::LinkStatus;

/// Where measurements are read.
#[derive(Debug, Clone)]
pub struct Sensors {
    root: PathBuf,
}

impl Default for Sensors {
    fn default() -> Self {
        Self { root: "/".into() }
    }
}

impl Sensors {
    /// Below another root, for tests.
    #[must_use]
    pub fn below(root: PathBuf) -> Self {
        Self { root }
    }

    fn text(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.root.join(path)).ok()
    }

    fn folders(&self, path: &str, prefix: &str) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.root.join(path)) else {
            return Vec::new();
        };
        entries
            .filter_map(Result::ok)
            .filter(|e| e.file_name().to_string_lossy().starts_with(prefix))
            .map(|e| e.path())
            .collect()
    }

    /// Load average of one minute.
    #[must_use]
    pub fn load1(&self) -> f32 {
        self.text("proc/loadavg")
            .and_then(|t| t.split_whitespace().next()?.parse().ok())
            .unwrap_or(0.0)
    }

    /// Total and available memory, KiB.
    #[must_use]
    pub fn memory_kib(&self) -> (u64, u64) {
        let text = self.text("proc/meminfo").unwrap_or_default();
        let field = |name: &str| {
            text.lines()
                .find_map(|l| {
                    l.strip_prefix(name)?
                        .split_whitespace()
                        .next()?
                        .parse()
                        .ok()
                })
                .unwrap_or(0)
        };
        (field("MemTotal:"), field("MemAvailable:"))
    }

    /// Hottest sensor, °C.
    #[must_use]
    pub fn temperature_c(&self) -> Option<f32> {
        let zones = self
            .folders("sys/class/thermal", "thermal_zone")
            .into_iter()
            .map(|zone| zone.join("temp"));
        let monitors = self
            .folders("sys/class/hwmon", "hwmon")
            .into_iter()
            .map(|monitor| monitor.join("temp1_input"));
        zones
            .chain(monitors)
            .filter_map(|file| {
                std::fs::read_to_string(file)
                    .ok()?
                    .trim()
                    .parse::<f32>()
                    .ok()
            })
            .map(|milli| milli / 1_000.0)
            // a sensor that is not there reads as zero or as nonsense
            .filter(|c| (1.0..150.0).contains(c))
            .max_by(f32::total_cmp)
    }

    /// Whether the supply was too weak, where the box can tell: a Raspberry Pi's firmware (bit 16 of
    /// `get_throttled`: since boot) or its `rpi_volt` monitor.
    #[must_use]
    pub fn under_voltage(&self) -> Option<bool> {
        if let Some(text) = self.text("sys/devices/platform/soc/soc:firmware/get_throttled")
            && let Ok(bits) = u32::from_str_radix(text.trim().trim_start_matches("0x"), 16)
        {
            return Some(bits & 0x1_0001 != 0);
        }
        self.folders("sys/class/hwmon", "hwmon")
            .into_iter()
            .filter(|monitor| {
                std::fs::read_to_string(monitor.join("name")).is_ok_and(|n| n.trim() == "rpi_volt")
            })
            .find_map(|monitor| std::fs::read_to_string(monitor.join("in0_lcrit_alarm")).ok())
            .map(|alarm| alarm.trim() == "1")
    }
}

/// Size of the file system that holds `path`, and room on it for this program, bytes.
#[must_use]
pub fn disk(path: &Path) -> Option<(u64, u64)> {
    let stat = rustix::fs::statvfs(path).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Some((bytes(stat.f_blocks), bytes(stat.f_bavail)))
}

/// Writes a health record every so often.
pub struct HealthSource {
    every: Duration,
    state_dir: PathBuf,
    link: watch::Receiver<LinkStatus>,
    sensors: Sensors,
    was_weak: bool,
}

impl HealthSource {
    /// Measures the box whose buffer lies in `state_dir`, every `every`.
    #[must_use]
    pub fn new(
        every: Duration,
        state_dir: PathBuf,
        link: watch::Receiver<LinkStatus>,
        sensors: Sensors,
    ) -> Self {
        Self {
            every,
            state_dir,
            link,
            sensors,
            was_weak: false,
        }
    }

    async fn measure(&mut self, context: &Context) -> Health {
        let under_voltage = self.sensors.under_voltage();
        self.was_weak |= under_voltage == Some(true);
        let (memory_total_kib, memory_available_kib) = self.sensors.memory_kib();
        let (disk_total, disk_free) = disk(&self.state_dir).unwrap_or((0, 0));
        let lanes = context.buffer.stat().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "health cannot ask the buffer");
            Vec::new()
        });
        Health {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            boot: context.clock.boot(),
            uptime_s: context.clock.mono_ms() / 1_000,
            load1: self.sensors.load1(),
            memory_total_kib,
            memory_available_kib,
            disk_total,
            disk_free,
            temperature_c: self.sensors.temperature_c(),
            under_voltage: under_voltage.map(|weak| weak || self.was_weak),
            clock: context.clock.quality(),
            link: self.link.borrow().mode,
            lanes,
            devices: context.board.devices(),
        }
    }

    async fn run_until_stopped(mut self, context: Context) {
        let mut tick = tokio::time::interval(self.every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = context.stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let health = self.measure(&context).await;
            let body = RecordBody::new(
                context.clock.stamp(),
                None,
                Content::Health(Box::new(health)),
            );
            if let Err(error) = context.buffer.append(&body).await {
                tracing::warn!(%error, "a health record was not accepted");
                context.buffer.give_up(&body, &error).await;
            }
        }
    }
}

impl Source for HealthSource {
    fn run(self: Box<Self>, context: Context) -> BoxFuture<'static, ()> {
        self.run_until_stopped(context).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let file = root.join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }

    #[test]
    fn a_raspberry_pi_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        write(root, "proc/loadavg", "0.52 0.40 0.33 1/123 4567\n");
        write(
            root,
            "proc/meminfo",
            "MemTotal:         948280 kB\nMemFree: 1 kB\nMemAvailable:     612344 kB\n",
        );
        write(root, "sys/class/thermal/thermal_zone0/temp", "48312\n");
        write(root, "sys/class/hwmon/hwmon0/temp1_input", "51000\n");
        write(root, "sys/class/hwmon/hwmon1/name", "rpi_volt\n");
        write(root, "sys/class/hwmon/hwmon1/in0_lcrit_alarm", "0\n");
        let sensors = Sensors::below(root.to_owned());
        assert!((sensors.load1() - 0.52).abs() < 0.001);
        assert_eq!(sensors.memory_kib(), (948_280, 612_344));
        assert_eq!(sensors.temperature_c(), Some(51.0));
        assert_eq!(sensors.under_voltage(), Some(false));
        write(root, "sys/class/hwmon/hwmon1/in0_lcrit_alarm", "1\n");
        assert_eq!(sensors.under_voltage(), Some(true));
        write(
            root,
            "sys/devices/platform/soc/soc:firmware/get_throttled",
            "50000\n",
        );
        assert_eq!(sensors.under_voltage(), Some(true), "since boot");
        write(
            root,
            "sys/devices/platform/soc/soc:firmware/get_throttled",
            "0x80008\n",
        );
        assert_eq!(sensors.under_voltage(), Some(false), "only hot");
    }

    #[test]
    fn a_box_without_sensors_says_so_instead_of_guessing() {
        let dir = tempfile::tempdir().unwrap();
        let sensors = Sensors::below(dir.path().to_owned());
        assert_eq!(sensors.temperature_c(), None);
        assert_eq!(sensors.under_voltage(), None);
        assert_eq!(sensors.memory_kib(), (0, 0));
        let (total, free) = disk(dir.path()).unwrap();
        assert!(total >= free && total > 0);
    }
}
