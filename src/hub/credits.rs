//! Owns what the hub has asked other threads for: credits bound what is in their queues, and what
//! has none waits here. The other parts of the hub call it. Whose turn it is at the readers, `lanes`
//! knows.

use super::{Effect, Hub};
use crate::config;
use crate::message::{ToReader, ToWriter};

/// Requests to the writer that were not answered yet.
#[derive(Debug, Default)]
pub(super) struct Credits {
    pub(super) appends: usize,
    pub(super) subscriptions: usize,
    pub(super) pings: usize,
}

impl Hub {
    /// Sends a request to the readers, now or when its turn comes.
    pub(super) fn ask_reader(&mut self, request: ToReader) {
        self.reads.ask(request);
        self.send_to_readers();
    }

    pub(super) fn send_to_readers(&mut self) {
        self.effects.extend(std::iter::from_fn(|| self.reads.next()).map(Effect::ToReader));
    }

    /// Sends a change of the index to the writer, in order, now or when it has fewer.
    pub(super) fn ask_subscription(&mut self, message: ToWriter) {
        self.waiting_subscriptions.push_back(message);
        self.send_subscriptions();
    }

    fn send_subscriptions(&mut self) {
        while self.credits.subscriptions < config::SUBSCRIPTIONS_IN_FLIGHT_MAX
            && let Some(message) = self.waiting_subscriptions.pop_front()
        {
            self.credits.subscriptions += 1;
            self.effects.push_back(Effect::ToWriter(message));
        }
    }

    pub(super) fn subscription_answered(&mut self) {
        self.credits.subscriptions -= 1;
        self.send_subscriptions();
    }

    pub(super) fn append_answered(&mut self, bytes: usize) {
        self.credits.appends -= 1;
        self.bodies_bytes -= bytes;
    }
}
