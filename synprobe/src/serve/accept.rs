//! Connections under way, bounded in number. A new one is always taken. Where there is no room, the oldest one
//! that has not sent its request yet is closed, else the oldest: slow clients delay nobody.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::task::{AbortHandle, JoinHandle};

/// Connections at a time.
pub(super) const CONNECTIONS: usize = 64;

/// One connection.
struct HttpClient {
    task: AbortHandle,
    /// It has sent a whole request.
    asked: Arc<AtomicBool>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Clients(VecDeque<HttpClient>);

impl Clients {
    /// Makes room for one more.
    pub fn make_room(&mut self) {
        self.0.retain(|client| !client.task.is_finished());
        while self.0.len() >= CONNECTIONS {
            let waits = |client: &HttpClient| !client.asked.load(Ordering::Relaxed);
            let slow = self.0.iter().position(waits).unwrap_or(0);
            if let Some(client) = self.0.remove(slow) {
                client.task.abort();
            }
        }
    }

    /// Takes in one more. `asked` is set once it has sent a whole request.
    pub fn add(&mut self, task: &JoinHandle<()>, asked: Arc<AtomicBool>) {
        self.0.push_back(HttpClient {
            task: task.abort_handle(),
            asked,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn the_oldest_that_has_not_asked_is_closed_first() {
        let mut clients = Clients::default();
        let mut tasks = Vec::new();
        for n in 0..CONNECTIONS + 1 {
            clients.make_room();
            let task = tokio::spawn(pending());
            // The first one and most others have asked.
            clients.add(&task, Arc::new(AtomicBool::new(n != 3)));
            tasks.push(task);
        }
        assert!((&mut tasks[3]).await.unwrap_err().is_cancelled());
        assert!(!tasks[0].is_finished() && clients.0.len() == CONNECTIONS);
        clients.make_room();
        assert!((&mut tasks[0]).await.unwrap_err().is_cancelled());
        tasks.iter().for_each(|task| task.abort());
    }
}
