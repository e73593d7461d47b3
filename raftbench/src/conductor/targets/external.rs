//! A cluster that already runs: found by its endpoints, loaded and watched, never touched.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use loadgen::target::admin;

/// A member that others started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::conductor) struct Found {
    pub(in crate::conductor) name: String,
    pub(in crate::conductor) client: String,
}

/// How long one member may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The members behind `endpoints`, in their order, each with the name that the cluster gives it,
/// and the server's version.
pub(in crate::conductor) async fn find(
    endpoints: &[String],
) -> anyhow::Result<(Vec<Found>, String)> {
    let first = endpoints.first().context("--endpoints names no endpoint")?;
    let members = admin::member_list(first, PATIENCE).await?;
    ensure!(!members.is_empty(), "{first} answers with an empty member list");
    let (mut found, mut version) = (Vec::<Found>::new(), String::new());
    for endpoint in endpoints {
        let status = admin::status(endpoint, PATIENCE).await?;
        let id = status.header.map_or(0, |header| header.member_id);
        let Some(member) = members.iter().find(|member| member.id == id) else {
            bail!("{endpoint} (member {id:x}) is not a member of the cluster behind {first}");
        };
        let name = if member.name.is_empty() { format!("{id:x}") } else { member.name.clone() };
        if let Some(twice) = found.iter().find(|known| known.name == name) {
            bail!("{endpoint} and {} are the same member, {name}; name it once", twice.client);
        }
        found.push(Found { name, client: endpoint.clone() });
        version = format!("etcd API {}", status.version);
    }
    Ok((found, version))
}
