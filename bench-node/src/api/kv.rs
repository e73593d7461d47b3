//! The KV service, and the way of a request to the leader.
//!
//! Invariant: a request is proposed at most once. It goes to another member again only after a
//! proof that it was not proposed: no connection to send it on, or the answer "not leader".

use std::sync::Arc;

use api::etcdserverpb::kv_server::Kv;
use api::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, ResponseHeader, TxnRequest, TxnResponse,
};
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

use super::Shared;
use super::forward::{Forwarded, forward};
use super::leader::{Place, Way};
use super::reads::{self, LONG_BYTES, LONG_KEYS};
use crate::driver::{Input, OutcomeSender, Refusal};
use crate::kv::{self, Command, KvError, MAX_REQUEST_BYTES, Store, check};
use crate::peers::Route;

/// Serves etcd's KV.
pub(crate) struct KvService {
    shared: Arc<Shared>,
    /// Whether a request may be passed on. Not one that a peer passed on already.
    forwards: bool,
}

/// What is asked of the leader.
#[derive(Clone, Debug)]
pub(super) enum Asked {
    Command(Command),
    Range(RangeRequest),
    ReadTxn(TxnRequest),
}

impl Asked {
    /// Whether it changes nothing.
    pub(super) fn only_reads(&self) -> bool {
        !matches!(self, Self::Command(_))
    }
}

/// What it answers.
pub(super) enum Answer {
    Command(kv::Response),
    Range(RangeResponse),
}

impl KvService {
    pub(super) fn for_clients(shared: Arc<Shared>) -> Self {
        Self { shared, forwards: true }
    }

    pub(super) fn for_peers(shared: Arc<Shared>) -> Self {
        Self { shared, forwards: false }
    }

    /// The way to another member that leads, if there is one now.
    pub(super) fn route_to_leader(&self) -> Option<Route> {
        let leader = self.shared.view.borrow().leader.filter(|_| self.forwards)?;
        self.shared.links.find(leader).and_then(|link| link.route())
    }

    /// Brings a request to the leader, and its answer back.
    pub(super) async fn ask(&self, asked: Asked) -> Result<Answer, Status> {
        let arrived = std::time::Instant::now();
        let data = match &asked {
            Asked::Command(command) => command.encode(),
            Asked::Range(_) | Asked::ReadTxn(_) => bytes::Bytes::new(),
        };
        if data.len() > MAX_REQUEST_BYTES {
            return Err(KvError::RequestTooLarge.into());
        }
        let place = Arc::new(self.shared.admission.admit(data.len())?);
        let mut way = Way::new(&self.shared, self.forwards);
        loop {
            match way.next().await? {
                Place::Here => {
                    let answer = match &asked {
                        Asked::Command(_) => self.propose(data.clone(), arrived).await,
                        Asked::Range(request) => self.read_range(request).await,
                        Asked::ReadTxn(request) => self.read_txn(request).await,
                    };
                    match answer {
                        Err(Refusal::NotLeader) => {}
                        // A read changes nothing: whoever leads now may answer it.
                        Err(Refusal::LeaderChanged) if asked.only_reads() => {}
                        Err(refusal) => return Err(refusal.into()),
                        Ok(answer) => return answer,
                    }
                }
                Place::There(route) => {
                    match forward(route, asked.clone(), Arc::clone(&place)).await {
                        Forwarded::Answered(answer) => return answer,
                        Forwarded::NotTaken => {}
                    }
                }
            }
        }
    }

    async fn propose(
        &self,
        data: bytes::Bytes,
        arrived: std::time::Instant,
    ) -> Result<Result<Answer, Status>, Refusal> {
        let (reply, outcome) = oneshot::channel();
        let input = Input::Propose { data, arrived, reply: OutcomeSender::Call(reply) };
        self.shared.inputs.send(input).map_err(|_| Refusal::Stopped)?;
        let applied = outcome.await.map_err(|_| Refusal::Stopped)??;
        // What follows until the handler hands its answer over waits for nothing.
        self.shared.metrics.observe_answer(applied.at.elapsed());
        Ok(applied.result.map(Answer::Command).map_err(Status::from))
    }

    /// Waits until this member's store holds all that was committed when the request came.
    pub(super) async fn catch_up(&self) -> Result<(), Refusal> {
        let (reply, outcome) = oneshot::channel();
        self.shared.inputs.send(Input::Read(reply)).map_err(|_| Refusal::Stopped)?;
        outcome.await.map_err(|_| Refusal::Stopped)?
    }

    async fn read_range(&self, request: &RangeRequest) -> Result<Result<Answer, Status>, Refusal> {
        self.catch_up().await?;
        Ok(self.range_here(request.clone()).await.map(Answer::Range))
    }

    async fn read_txn(&self, request: &TxnRequest) -> Result<Result<Answer, Status>, Refusal> {
        self.catch_up().await?;
        let response = self.txn_here(request.clone()).await;
        Ok(response.map(|response| Answer::Command(kv::Response::Txn(response))))
    }

    /// Answers from this member's store as it is.
    pub(super) async fn range_here(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        let is_long = |store: &Store| store.is_longer(&request, LONG_KEYS, LONG_BYTES);
        let asked = request.clone();
        Ok(self.shared.read_long(is_long, move |store| store.range(&asked)).await??)
    }

    /// The same for a transaction that only reads.
    async fn txn_here(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        let is_long = |store: &Store| store.is_longer_txn(&request, LONG_KEYS, LONG_BYTES);
        let asked = request.clone();
        Ok(self.shared.read_long(is_long, move |store| store.read_txn(&asked)).await??)
    }

    async fn command(&self, command: Command) -> Result<kv::Response, Status> {
        match self.ask(Asked::Command(command)).await? {
            Answer::Command(response) => Ok(response),
            Answer::Range(_) => Err(mismatch()),
        }
    }

    fn answer<T>(
        &self,
        mut response: T,
        header: impl FnOnce(&mut T) -> &mut Option<ResponseHeader>,
    ) -> Result<Response<T>, Status> {
        self.shared.complete(header(&mut response));
        Ok(Response::new(response))
    }
}

#[tonic::async_trait]
impl Kv for KvService {
    async fn range(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeResponse>, Status> {
        let request = request.into_inner();
        check::range(&request)?;
        let mut response = if request.serializable && self.shared.restored() {
            self.range_here(request).await?
        } else {
            match self.ask(Asked::Range(request)).await? {
                Answer::Range(response) => response,
                Answer::Command(_) => return Err(mismatch()),
            }
        };
        self.shared.complete(&mut response.header);
        reads::hand_over(response).await
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let request = request.into_inner();
        check::put(&request)?;
        match self.command(Command::Put(request)).await? {
            kv::Response::Put(response) => self.answer(response, |response| &mut response.header),
            _ => Err(mismatch()),
        }
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let request = request.into_inner();
        check::delete_range(&request)?;
        match self.command(Command::DeleteRange(request)).await? {
            kv::Response::DeleteRange(response) => {
                self.answer(response, |response| &mut response.header)
            }
            _ => Err(mismatch()),
        }
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let request = request.into_inner();
        check::txn(&request)?;
        let answer = if !kv::is_read_only(&request) {
            self.ask(Asked::Command(Command::Txn(request))).await?
        } else if kv::is_serializable(&request) && self.shared.restored() {
            Answer::Command(kv::Response::Txn(self.txn_here(request).await?))
        } else {
            self.ask(Asked::ReadTxn(request)).await?
        };
        match answer {
            Answer::Command(kv::Response::Txn(mut response)) => {
                self.shared.complete(&mut response.header);
                reads::hand_over(response).await
            }
            _ => Err(mismatch()),
        }
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        match self.command(Command::Compact(request.into_inner())).await? {
            kv::Response::Compact(response) => {
                self.answer(response, |response| &mut response.header)
            }
            _ => Err(mismatch()),
        }
    }
}

/// Cannot happen: the store answers each command by its own kind.
pub(super) fn mismatch() -> Status {
    Status::internal("the answer is of another kind than the request")
}
