//! The bill of a build, before there are vectors: what `roxanne plan` says of so many of such a kind.

use super::{Control, child};
use crate::{reply::Refusal, route::Call};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use std::sync::{Mutex, PoisonError};

/// How many vectors of which kind.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlanBody {
    /// Vectors.
    #[schemars(range(min = 1, max = 100_000_000_000_u64))]
    n: u64,
    /// Coordinates of a vector.
    #[schemars(range(min = 1, max = 8192))]
    dim: usize,
    #[serde(default)]
    datatype: Datatype,
    /// Most memory of the build, in bytes.
    #[schemars(range(min = 1))]
    ram: Option<u64>,
}

/// The type of a coordinate.
#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "PlanDatatype")]
enum Datatype {
    #[default]
    Float32,
    Float16,
    Uint8,
    Int8,
}

/// `POST /v1/plan`.
pub(crate) fn plan(call: &Call, body: PlanBody) -> Result<Value, Refusal> {
    const MOST: u64 = 100_000_000_000;
    if !(1..=MOST).contains(&body.n) {
        return Err(Refusal::bad("limit_out_of_range", format!("n: {}; it is 1 to {MOST}", body.n)).field("n"));
    }
    if !(1..=roxanne_core::id::MAX_DIM).contains(&body.dim) {
        return Err(Refusal::out_of_range("dim", body.dim, 1, roxanne_core::id::MAX_DIM));
    }
    let element = ["f32", "f16", "u8", "i8"][body.datatype as usize];
    let input = format!("synth:n={},dim={},type={element}", body.n, body.dim);
    let mut arguments = vec!["plan".to_string(), input, "--json".to_string()];
    arguments.extend(body.ram.into_iter().flat_map(|ram| ["--ram".to_string(), ram.to_string()]));
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let program = call.server.program().map_err(|detail| Refusal::not_there(&detail))?;
    // What does not fit is said in the bill.
    let said = child::run_for(program, &arguments, &Control::alone(), &[0, 4]);
    let said = said.map_err(|detail| Refusal::bad("bad_input", detail))?;
    serde_json::from_str(&said).map_err(|error| {
        tracing::error!(%error, "a plan that is no JSON");
        Refusal::failed()
    })
}
