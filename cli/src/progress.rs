//! What is happening, on stderr: a bar a phase on a terminal, lines or JSON where they are asked for, silence where nobody looks.

use crate::text;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use roxanne_builder::Observer;
use serde_json::{Value, json};
use std::{
    fmt,
    io::{self, IsTerminal, Write},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Time between two JSON events of a phase.
const EVENT_EVERY: Duration = Duration::from_millis(250);
/// Time between two redraws of a bar that nothing moves, so that its clock does.
const TICK: Duration = Duration::from_millis(200);

/// `--progress`.
#[derive(Clone, Copy, Debug, Default, PartialEq, clap::ValueEnum)]
pub(crate) enum Style {
    /// Bars on a terminal, else nothing.
    #[default]
    Auto,
    /// A line when a phase begins and one when it ends.
    Plain,
    /// One JSON event a line.
    Json,
}

/// Hears of phases and shows them.
pub(crate) struct Progress {
    shown: Shown,
    running: Mutex<Option<Running>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Shown {
    Nothing,
    Bars,
    Lines,
    Events,
}

struct Running {
    name: &'static str,
    total: u64,
    unit: &'static str,
    done: u64,
    start: Instant,
    last_event: Instant,
    bar: Option<ProgressBar>,
}

/// One line to stderr. That nobody reads it is no reason to stop.
pub(crate) fn say(line: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

impl Progress {
    /// Shows progress as `style` says.
    pub(crate) fn new(style: Style) -> Progress {
        let shown = match style {
            Style::Auto if io::stderr().is_terminal() => Shown::Bars,
            Style::Auto => Shown::Nothing,
            Style::Plain => Shown::Lines,
            Style::Json => Shown::Events,
        };
        Progress { shown, running: Mutex::new(None) }
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many units of the phase are done, all in all.
    pub(crate) fn reached(&self, done: u64) {
        self.update(|before| done.max(before));
    }

    /// The last phase has ended well. Without this call it is left as it stands.
    pub(crate) fn end(&self) {
        self.end_running(&mut self.running());
    }

    fn update(&self, done: impl FnOnce(u64) -> u64) {
        let mut running = self.running();
        let Some(running) = running.as_mut().filter(|_| self.shown != Shown::Nothing) else { return };
        running.done = done(running.done);
        if let Some(bar) = &running.bar {
            bar.set_position(running.done);
        }
        if self.shown == Shown::Events && running.last_event.elapsed() >= EVENT_EVERY {
            running.last_event = Instant::now();
            say(running.event("progress"));
        }
    }

    fn end_running(&self, running: &mut Option<Running>) {
        let Some(mut ended) = running.take() else { return };
        ended.done = ended.done.max(ended.total);
        match self.shown {
            Shown::Nothing => {}
            Shown::Bars => {
                if let Some(bar) = &ended.bar {
                    bar.finish_and_clear();
                }
                say(ended.summary());
            }
            Shown::Lines => say(ended.summary()),
            Shown::Events => say(ended.event("end")),
        }
    }
}

impl Observer for Progress {
    fn phase(&self, name: &'static str, total: u64, unit: &'static str) {
        let mut running = self.running();
        self.end_running(&mut running);
        let now = Instant::now();
        let bar = (self.shown == Shown::Bars).then(|| bar(name, total, unit));
        let begun = Running { name, total, unit, done: 0, start: now, last_event: now, bar };
        match self.shown {
            Shown::Lines => say(format_args!("{name}: {} {unit}", text::count(total))),
            Shown::Events => say(begun.event("phase")),
            Shown::Nothing | Shown::Bars => {}
        }
        *running = Some(begun);
    }

    fn advance(&self, units: u64) {
        self.update(|before| before.saturating_add(units));
    }
}

impl Drop for Progress {
    /// A phase that did not end leaves the terminal clean.
    fn drop(&mut self) {
        if let Some(Running { bar: Some(bar), .. }) = self.running().as_ref() {
            bar.finish_and_clear();
        }
    }
}

impl Running {
    fn per_second(&self, seconds: f64) -> f64 {
        if seconds > 0.0 { self.done as f64 / seconds } else { 0.0 }
    }

    fn summary(&self) -> String {
        let seconds = self.start.elapsed().as_secs_f64();
        let (done, took) = (text::count(self.done), text::seconds(seconds));
        // A step that is done once has a time and no rate.
        let rate = if self.done > 1 { format!(", {}/s", text::rate(self.per_second(seconds))) } else { String::new() };
        format!("{:<16} {done} {} in {took}{rate}", self.name, self.unit)
    }

    fn event(&self, event: &str) -> Value {
        let seconds = self.start.elapsed().as_secs_f64();
        let rate = self.per_second(seconds);
        let mut value = json!({"event": event, "phase": self.name, "done": self.done, "total": self.total, "unit": self.unit, "seconds": seconds, "rate": rate});
        if event == "progress" && rate > 0.0 {
            value["eta_seconds"] = json!(self.total.saturating_sub(self.done) as f64 / rate);
        }
        value
    }
}

fn bar(name: &'static str, total: u64, unit: &'static str) -> ProgressBar {
    // Before the first unit is done there is nothing to judge by. Writing to what a bar writes to cannot fail.
    let rate = |state: &ProgressState, out: &mut dyn fmt::Write| {
        let _ = if state.pos() == 0 { write!(out, "-") } else { write!(out, "{}/s", text::rate(state.per_sec())) };
    };
    let left = |state: &ProgressState, out: &mut dyn fmt::Write| {
        let _ = match state.eta().as_secs().max(1) {
            _ if state.pos() == 0 => write!(out, "-"),
            seconds @ ..120 => write!(out, "{seconds} s"),
            seconds => write!(out, "{}", text::seconds(seconds as f64)),
        };
    };
    let template = "{prefix:<16} {bar:28} {percent:>3}%  {human_pos}/{human_len} {msg}  {rate}  ETA {left}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let style = style.with_key("rate", rate).with_key("left", left).progress_chars("█▉▊▋▌▍▎▏ ");
    let bar = ProgressBar::new(total).with_prefix(name).with_message(unit).with_style(style);
    bar.enable_steady_tick(TICK);
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(done: u64) -> Running {
        let now = Instant::now();
        Running { name: "leaf", total: 10, unit: "leaves", done, start: now, last_event: now, bar: None }
    }

    #[test]
    fn an_event_says_where_a_phase_is() {
        let event = running(4).event("progress");
        assert_eq!((event["phase"].as_str(), event["done"].as_u64(), event["total"].as_u64()), (Some("leaf"), Some(4), Some(10)));
        assert!(running(4).summary().starts_with("leaf             4 leaves in "));
        assert!(running(0).event("progress")["eta_seconds"].is_null());
    }

    #[test]
    fn a_phase_without_an_end_and_work_without_a_phase_are_survived() {
        let progress = Progress::new(Style::Auto);
        progress.advance(3);
        progress.phase("a", 0, "rows");
        progress.advance(u64::MAX);
        progress.advance(1);
        progress.phase("b", 2, "rows");
        progress.reached(2);
        progress.end();
        progress.end();
    }
}
