//! What is happening, on stderr: a bar a phase on a terminal, lines or JSON where they are asked for, silence where nobody looks.
//!
//! A clock of its own speaks at least every second, so that a phase whose work cannot be counted shows that it lives and what it holds.

use crate::{
    text,
    usage::{Meter, traffic_bytes},
};
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use roxanne_builder::Observer;
use roxanne_core::Budget;
use serde_json::{Value, json};
use std::{
    fmt,
    io::{self, IsTerminal, Write},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

/// Least time between two JSON events of a phase.
const EVENT_EVERY: Duration = Duration::from_millis(250);
/// Most time between two.
const BEAT: Duration = Duration::from_secs(1);
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
    state: Arc<Mutex<State>>,
    /// Dropped, it ends the clock.
    _clock: Option<Sender<()>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Shown {
    Nothing,
    Bars,
    Lines,
    Events,
}

#[derive(Default)]
struct State {
    running: Option<Running>,
    meter: Meter,
}

struct Running {
    name: &'static str,
    total: u64,
    unit: &'static str,
    done: u64,
    start: Instant,
    last_event: Instant,
    /// Read and written before it.
    traffic: (u64, u64),
    bar: Option<ProgressBar>,
}

/// One line to stderr. That nobody reads it is no reason to stop.
pub(crate) fn say(line: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Progress {
    /// Shows progress as `style` says.
    pub(crate) fn new(style: Style) -> Progress {
        Progress::within(style, Budget::default())
    }

    /// The same, and what is in use beside `budget`.
    pub(crate) fn within(style: Style, budget: Budget) -> Progress {
        let shown = match style {
            Style::Auto if io::stderr().is_terminal() => Shown::Bars,
            Style::Auto => Shown::Nothing,
            Style::Plain => Shown::Lines,
            Style::Json => Shown::Events,
        };
        let state = Arc::new(Mutex::new(State { meter: Meter { budget, ..Meter::default() }, ..State::default() }));
        let clock = matches!(shown, Shown::Bars | Shown::Events).then(|| clock(state.clone()));
        Progress { shown, state, _clock: clock }
    }

    /// So many units of the phase are done, all in all.
    pub(crate) fn reached(&self, done: u64) {
        self.update(|before| done.max(before));
    }

    /// The last phase has ended well. Without this call it is left as it stands.
    pub(crate) fn end(&self) {
        self.end_running(&mut locked(&self.state));
    }

    fn update(&self, done: impl FnOnce(u64) -> u64) {
        let State { running, meter } = &mut *locked(&self.state);
        let Some(running) = running.as_mut().filter(|_| self.shown != Shown::Nothing) else { return };
        running.done = done(running.done);
        if let Some(bar) = &running.bar {
            bar.set_position(running.done);
        }
        if self.shown == Shown::Events && running.last_event.elapsed() >= EVENT_EVERY {
            running.tell(meter);
        }
    }

    fn end_running(&self, state: &mut State) {
        let Some(mut ended) = state.running.take() else { return };
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
            Shown::Events => say(ended.event("end", &state.meter)),
        }
    }
}

/// A thread that speaks where nothing else did for a while; it ends when the sender is dropped.
fn clock(state: Arc<Mutex<State>>) -> Sender<()> {
    let (sender, ended) = mpsc::channel();
    let beat = move || {
        while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(BEAT / 2) {
            let State { running, meter } = &mut *locked(&state);
            match running {
                Some(running) if running.bar.is_some() || running.last_event.elapsed() >= BEAT / 2 => running.tell(meter),
                _ => {}
            }
        }
    };
    // Without the thread phases still speak for themselves.
    let _ = thread::Builder::new().name("progress".into()).spawn(beat);
    sender
}

impl Observer for Progress {
    fn phase(&self, name: &'static str, total: u64, unit: &'static str) {
        let mut state = locked(&self.state);
        self.end_running(&mut state);
        let now = Instant::now();
        let bar = (self.shown == Shown::Bars).then(|| bar(name, total, unit));
        let begun = Running { name, total, unit, done: 0, start: now, last_event: now, traffic: traffic_bytes(), bar };
        match self.shown {
            Shown::Lines => say(format_args!("{name}: {} {unit}", text::count(total))),
            Shown::Events => say(begun.event("phase", &state.meter)),
            Shown::Nothing | Shown::Bars => {}
        }
        state.running = Some(begun);
    }

    fn advance(&self, units: u64) {
        self.update(|before| before.saturating_add(units));
    }

    fn directory(&self, path: &Path) {
        locked(&self.state).meter.directory = Some(path.to_path_buf());
    }

    fn device_bytes(&self, bytes: u64) {
        locked(&self.state).meter.device_bytes = Some(bytes);
    }
}

impl Drop for Progress {
    /// A phase that did not end leaves the terminal clean, and the clock has nothing more to tell.
    fn drop(&mut self) {
        if let Some(Running { bar: Some(bar), .. }) = locked(&self.state).running.take() {
            bar.finish_and_clear();
        }
    }
}

impl Running {
    /// Where it is, on its bar or as an event.
    fn tell(&mut self, meter: &Meter) {
        match &self.bar {
            Some(bar) => {
                let (bytes, seconds) = (self.traffic_bytes(), self.start.elapsed().as_secs_f64());
                let traffic = format!("{} at {}/s", text::bytes(bytes), text::bytes((bytes as f64 / seconds.max(0.001)) as u64));
                bar.set_message(format!("{traffic}  {}", meter.text(&meter.now())));
            }
            None => {
                self.last_event = Instant::now();
                say(self.event("progress", meter));
            }
        }
    }

    /// Read and written since it began.
    fn traffic_bytes(&self) -> u64 {
        let (read, written) = traffic_bytes();
        (read + written).saturating_sub(self.traffic.0 + self.traffic.1)
    }

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

    fn event(&self, event: &str, meter: &Meter) -> Value {
        let seconds = self.start.elapsed().as_secs_f64();
        let rate = self.per_second(seconds);
        let ((read, written), (read_before, written_before)) = (traffic_bytes(), self.traffic);
        let mut value = json!({
            "event": event, "phase": self.name, "done": self.done, "total": self.total, "unit": self.unit, "seconds": seconds, "rate": rate,
            "read_bytes": read.saturating_sub(read_before), "written_bytes": written.saturating_sub(written_before),
        });
        if event == "progress" && rate > 0.0 {
            value["eta_seconds"] = json!(self.total.saturating_sub(self.done) as f64 / rate);
        }
        meter.json(&meter.now()).into_iter().for_each(|(key, bytes)| value[key] = bytes);
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
    let units = move |_: &ProgressState, out: &mut dyn fmt::Write| {
        let _ = write!(out, "{unit}");
    };
    let template = "{prefix:<16} {bar:20} {percent:>3}%  {human_pos}/{human_len} {units}  {rate}  ETA {left}  {wide_msg}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let style = style.with_key("rate", rate).with_key("left", left).with_key("units", units).progress_chars("█▉▊▋▌▍▎▏ ");
    let bar = ProgressBar::new(total).with_prefix(name).with_style(style);
    bar.enable_steady_tick(TICK);
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(done: u64) -> Running {
        let now = Instant::now();
        Running { name: "leaf", total: 10, unit: "leaves", done, start: now, last_event: now, traffic: (0, 0), bar: None }
    }

    #[test]
    fn an_event_says_where_a_phase_is_and_what_it_holds() {
        let meter = Meter { budget: Budget::ram(1 << 40), device_bytes: Some(5), ..Meter::default() };
        let event = running(4).event("progress", &meter);
        assert_eq!((event["phase"].as_str(), event["done"].as_u64(), event["total"].as_u64()), (Some("leaf"), Some(4), Some(10)));
        assert!(event["ram_bytes"].as_u64() > Some(0) && event["read_bytes"].as_u64() > Some(0));
        assert_eq!((event["ram_limit_bytes"].as_u64(), event["vram_bytes"].as_u64()), (Some(1 << 40), Some(5)));
        assert!(event["disk_bytes"].is_null());
        assert!(running(4).summary().starts_with("leaf             4 leaves in "));
        assert!(running(0).event("progress", &meter)["eta_seconds"].is_null());
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
