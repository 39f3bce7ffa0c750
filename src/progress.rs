//! Progress of a run: a bar on a terminal, milestone lines in a log, and the closing line.

use std::fmt::Write;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::sequence::counted;

/// Seconds between milestone lines in a log.
const MILESTONE: Duration = Duration::from_secs(30);

/// Counts sequences and residues done and shows the rate.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    begun: Instant,
    /// CPU-seconds that this process had used at the start.
    cpu: Option<f64>,
    last_milestone: Instant,
    sequences: u64,
    residues: u64,
    expected: Option<u64>,
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    /// Begins to count. The bar is drawn on a terminal only; [`Progress::expect`] sets the total
    /// when it is known.
    pub fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, draw_target());
        bar.set_style(style("{spinner} {pos} residues, {rate}, {elapsed}"));
        let now = Instant::now();
        Self {
            bar,
            begun: now,
            cpu: cpu_seconds(),
            last_milestone: now,
            sequences: 0,
            residues: 0,
            expected: None,
        }
    }

    /// Sets the total number of residues; the bar or the milestone lines show the time left from
    /// now on.
    pub fn expect(&mut self, residues: u64) {
        self.expected = Some(residues);
        self.bar
            .set_style(style("{wide_bar} {percent}% {rate}, {eta} left"));
        self.bar.set_length(residues);
    }

    /// Counts finished sequences and residues.
    pub fn add(&mut self, sequences: u64, residues: u64) {
        self.sequences += sequences;
        self.residues += residues;
        self.bar.inc(residues);
        if self.bar.is_hidden() && self.last_milestone.elapsed() >= MILESTONE {
            self.last_milestone = Instant::now();
            let rate = self.residues as f64 / self.begun.elapsed().as_secs_f64();
            let left = self
                .expected
                .map(|expected| left(expected, self.residues, rate));
            tracing::info!(
                "{}, {} so far, {rate:.0} residues/s{}",
                counted(self.sequences, "sequence"),
                counted(self.residues, "residue"),
                left.unwrap_or_default()
            );
        }
    }

    /// The closing line:
    /// `53 sequences, 26430 residues, 4.2 s, 6293 residues/s, 8.1 CPU-seconds, peak memory 312 MiB`.
    pub fn finish(self) {
        self.bar.finish_and_clear();
        let seconds = self.begun.elapsed().as_secs_f64();
        let rate = self.residues as f64 / seconds;
        let cpu = cpu_seconds()
            .zip(self.cpu)
            .map(|(now, begun)| format!(", {:.2} CPU-seconds", now - begun))
            .unwrap_or_default();
        let memory = peak_memory()
            .map(|bytes| format!(", peak memory {} MiB", bytes >> 20))
            .unwrap_or_default();
        tracing::info!(
            "{}, {}, {seconds:.2} s, {rate:.0} residues/s{cpu}{memory}",
            counted(self.sequences, "sequence"),
            counted(self.residues, "residue")
        );
    }
}

/// Progress and time left: `, 34%, about 12 min left`.
fn left(expected: u64, done: u64, rate: f64) -> String {
    let share = (100.0 * done as f64 / expected.max(1) as f64).min(100.0);
    let minutes = expected.saturating_sub(done) as f64 / rate.max(1.0) / 60.0;
    format!(", {share:.0}%, about {minutes:.0} min left")
}

/// The steps of a training run as a live line on a terminal. The log of the run is separate.
#[derive(Debug)]
pub struct Steps {
    bar: ProgressBar,
}

impl Steps {
    /// A run of `steps` steps, of which `done` are done.
    pub fn new(done: u64, steps: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(steps), draw_target());
        bar.set_style(style("{wide_bar} {pos}/{len} {msg}, {eta} left"));
        bar.set_position(done);
        bar.reset_eta();
        Self { bar }
    }

    /// Whether the live line is not shown, for lack of a terminal or because of `--quiet`.
    pub fn is_hidden(&self) -> bool {
        self.bar.is_hidden()
    }

    /// Shows a step with a message.
    pub fn show(&self, step: u64, message: String) {
        self.bar.set_message(message);
        self.bar.set_position(step);
    }

    /// Runs `f`, which may write lines, without the live line between them.
    pub fn suspend<T>(&self, f: impl FnOnce() -> T) -> T {
        self.bar.suspend(f)
    }

    /// Removes the live line.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Stderr, unless `--quiet` or the terminal rules a bar out.
fn draw_target() -> ProgressDrawTarget {
    if shows_bars() {
        ProgressDrawTarget::stderr_with_hz(4)
    } else {
        ProgressDrawTarget::hidden()
    }
}

/// Whether bars may be drawn: not with `--quiet`, and not on a terminal that cannot move its cursor
/// (`TERM=dumb`).
pub fn shows_bars() -> bool {
    tracing::enabled!(tracing::Level::INFO)
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

fn style(template: &str) -> ProgressStyle {
    let rate = |state: &ProgressState, text: &mut dyn Write| {
        // A bar that cannot be drawn is no reason to stop.
        let _ = write!(text, "{:.0} residues/s", state.per_sec());
    };
    ProgressStyle::with_template(template)
        .expect("the templates above are well formed")
        .with_key("rate", rate)
}

/// CPU time of all threads of this process, in steps of 10 ms; known on Linux only.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // User and system time are fields 14 and 15; the fields after the name in parentheses begin
    // with field 3.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some((ticks()? + ticks()?) as f64 / 100.0)
}

/// Peak memory of this process in bytes; known on Linux only.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left() {
        let table = [
            ((1000, 340, 1.0), ", 34%, about 11 min left"),
            ((1000, 1200, 5.0), ", 100%, about 0 min left"),
            ((0, 0, 0.0), ", 0%, about 0 min left"),
        ];
        for ((expected, done, rate), text) in table {
            assert_eq!(left(expected, done, rate), text);
        }
    }
}
