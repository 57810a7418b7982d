//! One attempt: the request, its secret, the connection, and the outcome of the answer.

use bytes::Bytes;
use http::{HeaderValue, Request};
use http_body_util::Full;
use tokio::time::Instant;

use super::Worker;
use crate::dispatch::{
    call::{
        connection::{Answer, Deadlines, Exchange},
        credentials::CredentialError,
        redact::redact,
        request::{Call, Invalid, absolute, credentials},
    },
    job::Job,
    outcome::{Cause, Failure, Outcome, retry_after},
    secret::SecretRef,
    settings::{Settings, TargetSettings},
};
use crate::model::{
    record::{Record, header as record_header},
    target::Origin,
};

impl Worker {
    pub(super) async fn attempt(
        &mut self,
        job: &Job,
        all: &Settings,
        settings: &TargetSettings,
    ) -> Outcome {
        let id = job.message_id();
        let secret_header = &settings.secret_header;
        let new_call = || Call::new(&job.record, id, secret_header, settings.body_always);
        let call = match new_call() {
            Ok(call) => call,
            Err(invalid) => return Outcome::Failed(Failure::new(Cause::Invalid, invalid.0)),
        };
        let Call {
            secret,
            origin,
            request,
            names,
        } = call;
        let secret = match &secret {
            Some(secret) => match self.reveal(secret, &origin).await {
                Ok(value) => Some(value),
                Err(failure) => return Outcome::Failed(failure),
            },
            None => None,
        };
        let mut made = Some((request, names));
        // A second request is rare, so the record is read again for it, and no request is copied in advance.
        let request = || {
            let (mut request, names) = match made.take() {
                Some(made) => made,
                None => new_call().map(|call| (call.request, call.names))?,
            };
            if let Some(value) = &secret {
                let headers = request.headers_mut();
                headers.insert(secret_header.name.clone(), value.clone());
            }
            Ok((request, names))
        };
        let to = (&origin, &job.record);
        match self.exchange(to, request, all, settings).await {
            Ok(answer) if all.outcomes.delivers(answer.status) => Outcome::Delivered {
                status: answer.status,
            },
            Ok(answer) => {
                let asked = answer.retry_after.as_ref();
                let now = self.shared.clock.now();
                let date = answer.date.as_ref().map(HeaderValue::as_bytes);
                let asked = asked.and_then(|value| retry_after(value.as_bytes(), date, now));
                let asked = asked.map(|asked| asked.min(all.retry_after_max));
                let failure = Failure::answered(answer.status, answer.body, asked);
                let own = credentials(&job.record, &all.masked_headers);
                let sent = own.iter().map(|value| &value[..]);
                let sent = sent.chain(secret.as_ref().map(HeaderValue::as_bytes));
                Outcome::Failed(redact(failure, sent))
            }
            Err(failure) => Outcome::Failed(failure),
        }
    }

    async fn reveal(&self, secret: &SecretRef, target: &Origin) -> Result<HeaderValue, Failure> {
        let SecretRef {
            source,
            name,
            version,
        } = secret;
        let failure = |reason| Failure::new(Cause::Secret, reason);
        let revealed = self
            .shared
            .credentials
            .reveal(source, name, *version, target)
            .await
            .map_err(|error| {
                failure(match error {
                    CredentialError::Unknown => "the secret is not known",
                    CredentialError::NotForTarget => "the secret is not for this target",
                    CredentialError::Unreadable => "the secret cannot be opened",
                })
            })?;
        let mut value = HeaderValue::from_bytes(revealed.as_bytes())
            .map_err(|_| failure("the secret is no header value"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Calls the target. If a reused connection ends before an answer, the same request is sent once more on a fresh
    /// one, because the target may have closed the old one while the request was on its way.
    async fn exchange(
        &mut self,
        (origin, record): (&Origin, &Record),
        mut request: impl FnMut() -> Result<(Request<Full<Bytes>>, Vec<Bytes>), Invalid>,
        all: &Settings,
        settings: &TargetSettings,
    ) -> Result<Answer, Failure> {
        let began = Instant::now();
        let mut by = began + settings.attempt_timeout;
        let mut connected = began;
        if self
            .connection
            .as_ref()
            .is_some_and(|(open, _)| open != origin)
        {
            self.connection = None;
        }
        loop {
            let (_, connection) = match &mut self.connection {
                Some(open) => open,
                none => {
                    let left = by.saturating_duration_since(Instant::now());
                    let within = settings.connect_timeout.min(left);
                    let source = record.headers.get(record_header::SOURCE);
                    let source = source.unwrap_or("default");
                    // Boxed, because it is large and rare.
                    let connector = &self.shared.connector;
                    let opened = Box::pin(connector.connect(&all.outward, origin, source, within));
                    let (opened, waited) = opened.await.map_err(Failure::unconnected)?;
                    by += waited;
                    connected = Instant::now();
                    none.insert((origin.clone(), opened))
                }
            };
            let was_used = connection.is_used();
            let (request, names) =
                request().map_err(|invalid| Failure::new(Cause::Invalid, invalid.0))?;
            let request = match connection.is_http2() {
                true => absolute(request, origin),
                false => request,
            };
            let deadlines = Deadlines {
                response_by: connected + settings.response_timeout,
                by,
            };
            let wanted = |status| !all.outcomes.delivers(status);
            let exchange = connection.exchange(request, names, &mut self.timer, deadlines, wanted);
            match exchange.await {
                Exchange::Answered(answer) if was_used && answer.is_farewell() => {
                    self.connection = None;
                }
                Exchange::Answered(answer) => {
                    if !answer.reusable {
                        self.connection = None;
                    }
                    return Ok(answer);
                }
                Exchange::Ended(_) if was_used => self.connection = None,
                Exchange::Ended(failure) => {
                    self.connection = None;
                    return Err(Failure {
                        ended_unanswered: true,
                        ..failure
                    });
                }
                Exchange::Failed(failure) => {
                    self.connection = None;
                    return Err(failure);
                }
            }
        }
    }
}
