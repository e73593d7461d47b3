//! Calls to a cluster that are not load: status, members, and what a run's keys hold in the end.
//!
//! Invariant: none of this is measured, so it may take its time and ask again.

use std::time::Duration;

use api::etcdserverpb::cluster_client::ClusterClient;
use api::etcdserverpb::kv_client::KvClient;
use api::etcdserverpb::maintenance_client::MaintenanceClient;
use api::etcdserverpb::{
    Member, MemberAddRequest, MemberListRequest, MemberRemoveRequest, MoveLeaderRequest,
    RangeRequest, StatusRequest, StatusResponse,
};
use api::mvccpb::KeyValue;
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

use super::link::host_and_port;
use crate::error::LoadError;

/// One call may take this long.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Answers may be this large.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// A channel to one endpoint, for calls that are not load.
pub async fn channel(endpoint: &str, timeout: Duration) -> Result<Channel, LoadError> {
    let address = host_and_port(endpoint)?;
    let unreachable = |error: tonic::transport::Error| LoadError::Unreachable {
        endpoint: address.clone(),
        problem: innermost(&error),
    };
    Endpoint::from_shared(format!("http://{address}"))
        .map_err(unreachable)?
        .connect_timeout(timeout)
        .timeout(timeout)
        .tcp_nodelay(true)
        .connect()
        .await
        .map_err(unreachable)
}

/// Maintenance Status of one endpoint.
pub async fn status(endpoint: &str, timeout: Duration) -> Result<StatusResponse, LoadError> {
    let mut client = MaintenanceClient::new(channel(endpoint, timeout).await?);
    let answer = client.status(StatusRequest {}).await;
    answer.map(tonic::Response::into_inner).map_err(failed("status", endpoint))
}

/// The same over a connection to it that is there already, and is used up.
pub async fn status_over(
    stream: TcpStream,
    endpoint: &str,
    timeout: Duration,
) -> Result<StatusResponse, LoadError> {
    let address = host_and_port(endpoint)?;
    let unreachable = |error: tonic::transport::Error| LoadError::Unreachable {
        endpoint: address.clone(),
        problem: innermost(&error),
    };
    let mut stream = Some(TokioIo::new(stream));
    let once = tower::service_fn(move |_: http::Uri| {
        let stream = stream.take().ok_or_else(|| std::io::Error::other("the connection ended"));
        std::future::ready(stream)
    });
    let channel = Endpoint::from_shared(format!("http://{address}"))
        .map_err(unreachable)?
        .timeout(timeout)
        .connect_with_connector(once)
        .await
        .map_err(unreachable)?;
    let answer = MaintenanceClient::new(channel).status(StatusRequest {}).await;
    answer.map(tonic::Response::into_inner).map_err(failed("status", endpoint))
}

/// The members, as one endpoint knows them.
pub async fn member_list(endpoint: &str, timeout: Duration) -> Result<Vec<Member>, LoadError> {
    let mut client = ClusterClient::new(channel(endpoint, timeout).await?);
    let answer = client.member_list(MemberListRequest { linearizable: false }).await;
    answer.map(|list| list.into_inner().members).map_err(failed("member list", endpoint))
}

/// Asks the leader behind `channel`, which is `endpoint`'s, to hand leadership to the member `to`.
pub async fn move_leader(channel: Channel, endpoint: &str, to: u64) -> Result<(), LoadError> {
    let mut client = MaintenanceClient::new(channel);
    let answer = client.move_leader(MoveLeaderRequest { target_id: to }).await;
    answer.map(drop).map_err(failed("move leader", endpoint))
}

/// Asks `endpoint` to remove the member `id` from its cluster.
pub async fn member_remove(endpoint: &str, id: u64, timeout: Duration) -> Result<(), LoadError> {
    let mut client = ClusterClient::new(channel(endpoint, timeout).await?);
    let answer = client.member_remove(MemberRemoveRequest { id }).await;
    answer.map(drop).map_err(failed("member remove", endpoint))
}

/// Asks `endpoint` to add a member that votes, whose peers reach it at `peer` (`host:port`); its id.
pub async fn member_add(endpoint: &str, peer: &str, timeout: Duration) -> Result<u64, LoadError> {
    let mut client = ClusterClient::new(channel(endpoint, timeout).await?);
    let request =
        MemberAddRequest { peer_ur_ls: vec![format!("http://{peer}")], ..Default::default() };
    let answer = client.member_add(request).await.map_err(failed("member add", endpoint))?;
    let id = answer.into_inner().member.map(|member| member.id);
    id.ok_or_else(|| LoadError::Call {
        call: "member add",
        endpoint: endpoint.to_owned(),
        problem: "the answer does not name the new member".to_owned(),
    })
}

/// The id of the member whose peers reach it at `peer` (`host:port`).
pub async fn member_at(endpoint: &str, peer: &str, timeout: Duration) -> Result<u64, LoadError> {
    let url = format!("http://{peer}");
    let members = member_list(endpoint, timeout).await?;
    let member = members.iter().find(|member| member.peer_ur_ls.contains(&url));
    member.map(|member| member.id).ok_or_else(|| LoadError::Call {
        call: "member list",
        endpoint: endpoint.to_owned(),
        problem: format!("no member is reached at {url}"),
    })
}

/// All keys under `prefix`, read linearizably, in pages of about `page_keys`. Any endpoint may
/// answer; those that do not are asked again until `patience` is over.
pub async fn range_prefix(
    endpoints: &[String],
    prefix: &str,
    page_keys: i64,
    patience: Duration,
) -> Result<Vec<KeyValue>, LoadError> {
    let give_up = tokio::time::Instant::now() + patience;
    let (mut found, mut from) = (Vec::new(), Bytes::copy_from_slice(prefix.as_bytes()));
    let range_end = end_of_prefix(prefix.as_bytes());
    let (mut turn, mut client) = (0, None);
    loop {
        let endpoint = &endpoints[turn % endpoints.len()];
        let request = RangeRequest {
            key: from.clone(),
            range_end: range_end.clone(),
            limit: page_keys,
            ..Default::default()
        };
        match page(&mut client, endpoint, request).await {
            Ok(page) => {
                let more = page.more;
                found.extend(page.kvs);
                match found.last() {
                    Some(last) if more => from = after(&last.key),
                    _ => return Ok(found),
                }
            }
            Err(error) if tokio::time::Instant::now() >= give_up => return Err(error),
            Err(_) => {
                (client, turn) = (None, turn + 1);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn page(
    client: &mut Option<KvClient<Channel>>,
    endpoint: &str,
    request: RangeRequest,
) -> Result<api::etcdserverpb::RangeResponse, LoadError> {
    let connected = match client.take() {
        Some(connected) => connected,
        None => KvClient::new(channel(endpoint, CALL_TIMEOUT).await?)
            .max_decoding_message_size(MAX_ANSWER_BYTES),
    };
    let answer = client.insert(connected).range(request).await;
    answer.map(tonic::Response::into_inner).map_err(failed("range", endpoint))
}

/// The first key that does not start with `prefix`; etcd's convention for "all" is a zero byte.
fn end_of_prefix(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(&[0])
}

/// The next possible key.
fn after(key: &[u8]) -> Bytes {
    let mut next = key.to_vec();
    next.push(0);
    next.into()
}

pub(crate) fn failed(
    call: &'static str,
    endpoint: &str,
) -> impl FnOnce(tonic::Status) -> LoadError {
    let endpoint = endpoint.to_owned();
    move |status| {
        let problem = format!("{:?}: {}", status.code(), status.message());
        LoadError::Call { call, endpoint, problem }
    }
}

/// "transport error" helps nobody; its cause does.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_next_key_without_it() {
        assert_eq!(&end_of_prefix(b"run/7/")[..], b"run/70");
        assert_eq!(&end_of_prefix(b"a\xff")[..], b"b");
        assert_eq!(&end_of_prefix(b"\xff\xff")[..], b"\0");
        assert_eq!(&end_of_prefix(b"")[..], b"\0");
    }
}
