//! How long a build of any size takes: the work of each stage, counted, times what a unit of it costs on this machine, measured.
//!
//! Work follows from the plan: vectors read, pairs compared, members merged and pruned, bytes moved. What a unit costs comes from a small
//! build of a sample of the same input on the same device, and from a file written to and read from the same disk ([`probe`]). One thing
//! grows with n that no small build shows: rows that lie anywhere in memory cost more the larger it is, [`GROWTH`] a doubling. That figure is
//! assumed; docs/SCALE.md holds builds of one and of ten million against it. Disk and computing are added up, since a build does one after the other.

pub mod probe;

use crate::{Plan, Report, partition::PartitionParams};

/// What a stage that touches rows anywhere in memory costs more when there are twice as many: assumed.
pub const GROWTH: f64 = 0.06;

/// A row against a leader, of a row against another of its leaf: nobody keeps lists for leaders. From the build of ten million in docs/SCALE.md.
const LEADER_PAIR: f64 = 0.72;

/// Members that a vector has in a build of shards: itself and, but for those deep inside a shard, a ghost.
const MEMBERSHIPS: f64 = 1.9;

/// Leaders a shard that routing compares every vector with, of 256 to 4,096 in all.
const LEADERS_EACH: usize = 32;

/// What a unit of work costs, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Vectors of the build that was measured.
    pub vectors: u64,
    /// A vector read, checked and encoded.
    pub read: f64,
    /// A row brought before the leaders of one cluster, beside the pairs, which cost a part of what those of a leaf do.
    pub assign_visit: f64,
    /// Pairs that were compared for each that a partition into clusters of even size would compare. The surplus shrinks with the root of n: large
    /// sets have more levels whose sizes are drawn from many.
    pub unevenness: f64,
    /// A row against another of its leaf, and how many such pairs a vector has.
    pub leaf_pair: f64,
    /// See `leaf_pair`.
    pub leaf_pairs: f64,
    /// A vector's offers taken into reservoirs.
    pub merge: f64,
    /// A vector's candidates pruned.
    pub prune: f64,
    /// Training the codebook, once.
    pub train: f64,
    /// A vector put in its order on disk and encoded.
    pub order: f64,
    /// A vector's place on a page, its key, its share of the navigation graph, and whatever else a build does once a vector.
    pub write: f64,
    /// A byte written to disk, and synced.
    pub byte_written: f64,
    /// A byte read from disk.
    pub byte_read: f64,
}

/// Where the time of a build goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// Stages and their seconds, in order.
    pub stages: Vec<(&'static str, f64)>,
    /// All of them together.
    pub seconds: f64,
    /// How often the vectors pass through memory: read, built and written at once, or routed, built and written one after the other.
    pub passes: u64,
    /// Bytes that are read from disk, the input's among them.
    pub bytes_read: u64,
    /// Bytes that are written to it.
    pub bytes_written: u64,
}

/// Pairs of row and leader for each of `n` rows, and clusters that it is brought before, were all clusters of one size.
fn even_pairs(n: f64, params: &PartitionParams) -> (f64, f64) {
    let (mut size, mut copies, mut pairs, mut visits, mut level) = (n, 1.0, 0.0, 0.0, 0);
    while size > params.leaf_max as f64 && level < 16 {
        let fanout = params.fanout[level.min(params.fanout.len() - 1)] as f64;
        let leaders = (size / params.leader_share as f64).max(2.0 * fanout).min(params.leaders_max as f64);
        pairs += copies * leaders;
        visits += copies;
        copies *= fanout;
        size *= fanout / leaders;
        level += 1;
    }
    (pairs, visits)
}

impl Rates {
    /// From a build of a sample and the rates of a disk, bytes a second.
    pub fn of(report: &Report, params: &PartitionParams, written: f64, read: f64) -> Rates {
        let n = report.n as f64;
        let phase = |name: &str| report.phases.iter().filter(|phase| phase.name == name).map(|phase| phase.seconds).sum::<f64>();
        let work = &report.work;
        let (assign, leaf) = (work.assign_pairs.max(1) as f64, work.leaf_pairs.max(1) as f64);
        let (pairs, visits) = even_pairs(n, params);
        let leaf_pair = work.leaf_seconds / leaf;
        Rates {
            vectors: report.n,
            read: phase("read") / n,
            assign_visit: (work.assign_seconds - assign * LEADER_PAIR * leaf_pair).max(0.0) / (n * visits).max(1.0),
            unevenness: assign / (n * pairs).max(1.0),
            leaf_pair,
            leaf_pairs: leaf / n,
            merge: work.merge_seconds / n,
            prune: work.prune_seconds / n,
            train: work.train_seconds,
            order: phase("order and codes") / n,
            write: (phase("reach") + phase("navigation") + phase("pages") + phase("codes and keys")) / n,
            byte_written: 1.0 / written,
            byte_read: 1.0 / read,
        }
    }

    /// How much more rows anywhere in memory cost among `n` than among those measured.
    fn grown(&self, n: f64) -> f64 {
        1.0 + GROWTH * (n / self.vectors as f64).log2().max(0.0)
    }

    /// The time of a build as planned, of an input that lies in a file (or is generated).
    pub fn forecast(&self, plan: &Plan, params: &PartitionParams, from_file: bool) -> Forecast {
        let (n, shards) = (plan.n as f64, plan.shards as f64);
        let members = if plan.shards > 1 { MEMBERSHIPS * n } else { n };
        let grown = self.grown(members / shards);
        let (pairs, visits) = even_pairs(members / shards, params);
        let surplus = (self.unevenness - 1.0) * (self.vectors as f64 / (members / shards)).sqrt().min(1.0);
        let routed = if plan.shards > 1 { n * (LEADERS_EACH * plan.shards).clamp(256, 4096) as f64 } else { 0.0 };
        let input = if from_file { plan.n * plan.element.row_bytes(plan.dim) as u64 } else { 0 };
        // What shards leave for each other is written once and read once.
        let between = plan.read_bytes;
        let (bytes_read, bytes_written) = (input + between, plan.index_bytes + between);
        let stages = vec![
            ("read", n * self.read + input as f64 * self.byte_read),
            ("route", routed * LEADER_PAIR * self.leaf_pair),
            ("assign", members * (pairs * (1.0 + surplus) * LEADER_PAIR * self.leaf_pair + visits * self.assign_visit * grown)),
            ("leaf", members * self.leaf_pairs * self.leaf_pair * grown),
            ("merge", members * self.merge * grown),
            ("prune", members * self.prune * grown),
            ("train", self.train),
            ("order and codes", members * self.order * grown),
            ("pages", n * self.write * grown + plan.index_bytes as f64 * self.byte_written),
            ("between shards", between as f64 * (self.byte_read + self.byte_written)),
        ];
        let stages: Vec<_> = stages.into_iter().filter(|stage| stage.1 > 0.0).collect();
        let seconds = stages.iter().map(|stage| stage.1).sum();
        Forecast { stages, seconds, passes: if plan.shards > 1 { 3 } else { 1 }, bytes_read, bytes_written }
    }
}

/// Pages that a query reads at a list of `list_size` places, as measured at a hundred thousand and at a million vectors, to within 6%: it
/// hangs on the list, and what grows with n is the list that a recall needs (docs/SCALE.md).
pub fn reads_a_query(list_size: usize) -> f64 {
    7.5 + 0.62 * list_size as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BuildParams, Builder};
    use roxanne_core::metric::Metric;

    const RATES: Rates = Rates {
        vectors: 1 << 20,
        read: 1.0,
        assign_visit: 0.001,
        unevenness: 1.0,
        leaf_pair: 0.001,
        leaf_pairs: 4000.0,
        merge: 1.0,
        prune: 1.0,
        train: 1.0,
        order: 1.0,
        write: 1.0,
        byte_written: 0.0,
        byte_read: 0.0,
    };

    fn plan(n: u64, shards: usize) -> Plan {
        Builder::new(Metric::L2).input(&format!("synth:n={n},dim=128,type=u8")).unwrap().shards(shards).plan().unwrap()
    }

    #[test]
    fn even_clusters_are_counted_by_hand() {
        let params = PartitionParams::default();
        // 1,000 leaders; ten clusters of 10,000 with 100 each; thirty of 300 with 3 each; then leaves.
        assert_eq!(even_pairs(1e6, &params), (1000.0 + 10.0 * 100.0 + 30.0 * 3.0, 1.0 + 10.0 + 30.0));
        assert_eq!(even_pairs(256.0, &params), (0.0, 0.0));
        // The most leaders at two levels.
        assert_eq!(even_pairs(1e8, &params).0, 1000.0 + 10.0 * 1000.0 + 30.0 * 30.0);
    }

    #[test]
    fn a_forecast_grows_with_n_and_shards_cost_their_ghosts() {
        let params = BuildParams::default().graph(128).unwrap().partition;
        let forecast = |n, shards| RATES.forecast(&plan(n, shards), &params, true);
        let (small, large) = (forecast(1 << 20, 1), forecast(1 << 24, 1));
        let prune = |forecast: &Forecast| forecast.stages.iter().find(|stage| stage.0 == "prune").unwrap().1;
        assert_eq!(prune(&small), f64::from(1 << 20));
        assert!((prune(&large) / prune(&small) - 16.0 * (1.0 + 4.0 * GROWTH)).abs() < 1e-9);
        assert_eq!(large.seconds, large.stages.iter().map(|stage| stage.1).sum::<f64>());
        assert_eq!((large.passes, large.bytes_read), (1, 128 << 24));
        let shards = forecast(1 << 24, 4);
        assert!(shards.passes == 3 && prune(&shards) > 1.5 * prune(&large) && prune(&shards) < 1.9 * prune(&large));
        assert!(shards.bytes_written > large.bytes_written + (300 << 24) && shards.bytes_read > large.bytes_read);
        assert!(RATES.forecast(&plan(1 << 24, 1), &params, false).bytes_read == 0);
    }
}
