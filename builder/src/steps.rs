//! A build from its description to its directory: planned, checked, computed, looked at, published; whole, or step by step by many processes.

use crate::{
    BuildError, Builder, Plan, Report, input, input_text,
    output::{self, Checkpoint, Output, Partial},
    progress::Watch,
    sharded,
};
use roxanne_core::dataset::Dataset;
use std::{path::Path, time::Instant};

/// What there is to do, whatever computes it.
pub(crate) struct Job<'a> {
    pub(crate) dataset: &'a Dataset,
    pub(crate) plan: &'a Plan,
    pub(crate) params: Vec<(String, String)>,
    pub(crate) watch: &'a Watch<'a>,
    /// `None` keeps nothing.
    pub(crate) directory: Option<&'a Path>,
    pub(crate) step: Step,
    /// What to leave out of it.
    pub(crate) rehearsal: Option<Rehearsal>,
}

/// What of a build is done: all, or a step of one in shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    All,
    Plan,
    Shard(usize),
    Commit,
}

/// A build that keeps nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rehearsal {
    /// The one shard that is built, of as many as are planned.
    pub(crate) only_shard: Option<usize>,
}

impl Builder {
    /// Builds the index directory `out`.
    ///
    /// # Errors
    /// Bad input, a budget too small, a full disk, `out` there already with other content; in all of them `out` is as it was before.
    pub fn build(self, out: impl AsRef<Path>) -> Result<Report, BuildError> {
        self.step(out.as_ref(), Step::All)
    }

    /// The first step of a build in shards that many processes share, each with the same description and `out`: learns what all need and
    /// brings every row to its shards. Done again, it goes on or does nothing.
    ///
    /// # Errors
    /// As [`Builder::build`]; fewer than two shards.
    pub fn shard_plan(self, out: impl AsRef<Path>) -> Result<Report, BuildError> {
        self.step(out.as_ref(), Step::Plan)
    }

    /// The second step, for shard `index`: by any process that sees the directory, in any order, side by side. Done again, it does nothing.
    ///
    /// # Errors
    /// As [`Builder::build`]; the first step is not done; no such shard; another process is at it.
    pub fn shard_build(self, out: impl AsRef<Path>, index: usize) -> Result<Report, BuildError> {
        self.step(out.as_ref(), Step::Shard(index))
    }

    /// The last step, when all shards are built: joins them, writes the index and publishes it by one rename.
    ///
    /// # Errors
    /// As [`Builder::build`]; a shard is missing, or what it left is damaged.
    pub fn shard_commit(self, out: impl AsRef<Path>) -> Result<Report, BuildError> {
        self.step(out.as_ref(), Step::Commit)
    }

    fn step(self, out: &Path, step: Step) -> Result<Report, BuildError> {
        self.planned(|builder, plan, start| builder.run(out, plan, start, step))
    }

    /// Does all the work of a build, every page included, and keeps nothing: how long would it take, and what would it need? What shards leave
    /// for each other goes through a temporary directory. With `only_shard` one shard of those planned is built: all rows are routed, those
    /// of other shards to nowhere.
    ///
    /// # Errors
    /// As [`Builder::build`]; no such shard.
    pub fn rehearse(self, only_shard: Option<usize>) -> Result<Report, BuildError> {
        self.planned(|builder, plan, start| {
            let step = only_shard.map_or(Step::All, Step::Shard);
            builder.check_step(plan, step)?;
            let dataset = builder.dataset.as_ref().ok_or(BuildError::NoInput)?;
            let watch = Watch::new(builder.observer.as_ref(), &builder.stop);
            let scratch = if plan.shards > 1 { Some(Partial::scratch()?) } else { None };
            let job = Job {
                dataset,
                plan,
                params: builder.manifest_params(plan)?,
                watch: &watch,
                directory: scratch.as_ref().map(Partial::directory),
                step: Step::All,
                rehearsal: Some(Rehearsal { only_shard }),
            };
            let mut report = Report::of(plan);
            let manifest = builder.compute(&job, &mut report)?;
            Ok(report.finished(watch.finish(), manifest.map_or(0, |m| m.total_bytes()), start))
        })
    }

    /// Refuses steps of a build without shards, and shards that there are not.
    fn check_step(&self, plan: &Plan, step: Step) -> Result<(), BuildError> {
        let refuse =
            |name, value: usize, high: usize| Err(BuildError::Param { name, value: value.to_string(), low: 0.0, high: high as f64 });
        match step {
            Step::All => Ok(()),
            _ if plan.shards < 2 => Err(BuildError::OneShard),
            Step::Shard(index) if index >= plan.shards => refuse("shard", index, plan.shards - 1),
            _ => Ok(()),
        }
    }

    /// Plans, checks, and works on the threads that were asked for.
    fn planned(mut self, work: impl FnOnce(&Builder, &Plan, Instant) -> Result<Report, BuildError> + Send) -> Result<Report, BuildError> {
        let start = Instant::now();
        let plan = self.plan()?;
        plan.check(&self.budget, &self.device)?;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads).build().map_err(|e| BuildError::Threads(e.to_string()))?;
        pool.install(|| work(&self, &plan, start))
    }

    fn run(&self, out: &Path, plan: &Plan, start: Instant, step: Step) -> Result<Report, BuildError> {
        self.check_step(plan, step)?;
        let dataset = self.dataset.as_ref().ok_or(BuildError::NoInput)?;
        let watch = Watch::new(self.observer.as_ref(), &self.stop);
        let params = self.manifest_params(plan)?;
        let mut report = Report::of(plan);
        let checkpoint = match (step, plan.shards, self.fresh) {
            (Step::Shard(_), ..) => Checkpoint::Joined,
            (Step::Commit, ..) => Checkpoint::Expected,
            (_, _, true) => Checkpoint::Fresh,
            (_, 1, _) => Checkpoint::None,
            _ => Checkpoint::Continue,
        };
        let content = || Ok(input_text(input::hash_all(dataset, &watch)?));
        let partial = match Output::begin(out, &params, &content, checkpoint)? {
            Output::Complete(manifest) => {
                report.already_complete = true;
                report.rotated = manifest.param("rotated") == Some("true");
                return Ok(report.finished(watch.finish(), manifest.total_bytes(), start));
            }
            Output::Begun(partial) => partial,
        };
        self.observer.directory(partial.directory());
        let job = Job { dataset, plan, params, watch: &watch, directory: Some(partial.directory()), step, rehearsal: None };
        let manifest = match partial.completed().filter(|_| step == Step::All || step == Step::Commit) {
            Some(manifest) => {
                let is_ours = |(name, value): &(String, String)| manifest.param(name) == Some(value);
                if !job.params.iter().all(is_ours) || manifest.param(output::INPUT) != Some(&content()?) {
                    return Err(BuildError::OtherCheckpoint { path: partial.directory().to_path_buf() });
                }
                manifest
            }
            None => {
                let made = self.compute(&job, &mut report).map_err(|error| match error {
                    BuildError::Stopped if partial.has_checkpoint() => BuildError::Paused { path: partial.directory().to_path_buf() },
                    error => error,
                })?;
                let Some(manifest) = made else { return Ok(report.finished(watch.finish(), 0, start)) };
                watch.phase("commit", 1, "index");
                manifest.write(partial.directory())?;
                manifest
            }
        };
        sharded::crash_point();
        if let Some(judge) = &self.judge {
            watch.phase("verify", 1, "index");
            if let Err(reason) = judge(partial.directory()) {
                partial.discard();
                return Err(BuildError::Rejected { reason });
            }
        }
        sharded::crash_point();
        if plan.shards > 1 {
            sharded::clean(partial.directory(), &manifest)?;
        }
        sharded::crash_point();
        partial.commit()?;
        sharded::crash_point();
        Ok(report.finished(watch.finish(), manifest.total_bytes(), start))
    }
}
