//! What every step of a sharded build needs of the input, learned once and kept in the build's directory: the codec and the codebook.

use super::{
    UNFINISHED,
    disk::{Disk, Target},
    io,
    route::{self, Router},
    segments::{Identity, SegmentReader, SegmentWriter},
};
use crate::{
    BuildError, Builder, Report,
    backend::BuildCodes,
    codebook::{self, Sample},
    input,
    steps::Job,
};
use roxanne_core::{
    build_codes::{BuildCodec, CODEC_BYTES},
    format::FormatError,
    pq::Codebook,
    random::CounterRng,
};
use std::{fs, path::Path};

/// Its name in a build's directory.
pub(super) const MODEL: &str = "model";

pub(super) struct Model {
    pub(super) codec: BuildCodec,
    pub(super) codebook: Codebook,
    /// Recall of codes alone on held-out vectors, where there were any.
    pub(super) quality: Option<f64>,
}

/// The rows that shards are cut by and the codebook is trained on: as many as a build in one shard trains on at least.
fn sample(builder: &Builder, job: &Job<'_>, codec: &BuildCodec) -> Result<BuildCodes, BuildError> {
    let rows = codebook::sample_rows(codec.pq_dim()).max(route::sample_rows(job.plan.shards));
    input::sample_codes(job.dataset, codec, builder.metric, CounterRng::new(builder.params.seed).part(0x50A7), rows)
}

/// Which shards rows go to.
pub(super) fn router(builder: &Builder, job: &Job<'_>, codec: &BuildCodec) -> Result<Router, BuildError> {
    Ok(Router::new(&sample(builder, job, codec)?, job.plan.shards, builder.params.seed))
}

impl Model {
    /// Learns it, and keeps it in `directory`.
    pub(super) fn learn(builder: &Builder, job: &Job<'_>, directory: &Path, fingerprint: u64, disk: &Disk) -> Result<Model, BuildError> {
        let codec = input::learn_codec(job.dataset, builder.metric, builder.params.seed)?;
        let sample = sample(builder, job, &codec)?;
        let (codebook, training) =
            Sample::of(&sample, &codec, builder.params.seed).train(builder.metric, job.plan.code_bytes, builder.params.seed)?;
        let quality = training.candidates.iter().find(|c| c.turn == training.chosen).and_then(|c| c.quality);
        let (path, temporary) = (directory.join(MODEL), directory.join(format!("{MODEL}{UNFINISHED}")));
        let mut writer = SegmentWriter::new(disk, &Target::open(&temporary)?, Identity::of(fingerprint, MODEL, 0), 1, 0);
        writer.push(&quality.unwrap_or(f64::NAN).to_le_bytes())?;
        writer.push(&codec.to_bytes())?;
        writer.push(&codebook.to_bytes())?;
        writer.finish()?;
        fs::rename(&temporary, &path).map_err(io(&path))?;
        Ok(Model { codec, codebook, quality })
    }

    /// As it was learned before; `None` before that.
    pub(super) fn read(
        builder: &Builder,
        job: &Job<'_>,
        directory: &Path,
        fingerprint: u64,
        disk: &Disk,
    ) -> Result<Option<Model>, BuildError> {
        let path = directory.join(MODEL);
        let Ok(file) = fs::metadata(&path) else { return Ok(None) };
        let mut reader = SegmentReader::open(disk, &path, Identity::of(fingerprint, MODEL, 0), 0, file.len())?;
        let mut bytes = Vec::new();
        while let Some(part) = reader.next()? {
            bytes.extend_from_slice(part);
        }
        let parts = bytes.split_first_chunk::<8>().and_then(|(quality, rest)| Some((quality, rest.split_first_chunk::<CODEC_BYTES>()?)));
        let damaged = |detail: String| FormatError::Corrupt { path: path.clone(), offset: 0, detail };
        let (quality, (codec, codebook)) = parts.ok_or_else(|| damaged("it is too short".into()))?;
        let quality = f64::from_le_bytes(*quality);
        Ok(Some(Model {
            codec: BuildCodec::from_bytes(job.plan.element, builder.metric, job.plan.dim, codec)?,
            codebook: Codebook::from_bytes(codebook).map_err(|error| damaged(error.to_string()))?,
            quality: (!quality.is_nan()).then_some(quality),
        }))
    }

    /// Tells the report of it.
    pub(super) fn report(&self, report: &mut Report) {
        report.rotated = self.codebook.is_rotated();
        report.pq_quality = self.quality;
    }
}
