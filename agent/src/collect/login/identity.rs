//! Connecting as another operating-system user, which is what `peer`, `unix_socket` and `auth_socket` look at.
//!
//! A process has one user; a thread of Linux has its own. So the connection is made on a thread that takes the user's identity and ends right after: the
//! rest of the agent stays who it is. The server asks the kernel who connected, so what happens on the connection later does not matter.

use std::{io, thread};

use rustix::{
    process::{Gid, Uid, geteuid},
    thread::{set_thread_res_gid, set_thread_res_uid},
};
use tokio::{runtime::Handle, sync::oneshot};

use crate::{collect::failure::Failure, model::Asked};

/// A user of the operating system, as the initial user namespace numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Identity {
    /// Who the agent is.
    pub(super) fn own_uid() -> u32 {
        geteuid().as_raw()
    }

    /// Makes the calling thread this user. Its capabilities go with that.
    fn assume(self) -> io::Result<()> {
        if self.uid == Identity::own_uid() {
            return Ok(());
        }
        // The group first: afterwards the right to change it is gone.
        set_thread_res_gid(None::<Gid>, Gid::from_raw(self.gid), None::<Gid>)?;
        set_thread_res_uid(None::<Uid>, Uid::from_raw(self.uid), None::<Uid>)?;
        Ok(())
    }
}

/// Runs `work` on a thread of its own as `identity`, or as the agent if there is none; `work` may wait for futures of the current runtime.
pub(super) async fn run_as<T: Send + 'static>(
    identity: Option<Identity>,
    work: impl FnOnce(&Handle) -> T + Send + 'static,
) -> Result<T, Failure> {
    let handle = Handle::current();
    let (reply, answer) = oneshot::channel();
    let body = move || {
        let result = identity.map_or(Ok(()), Identity::assume).map(|()| work(&handle));
        // Whoever asked may have gone away meanwhile.
        let _ = reply.send(result);
    };
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            let uid = identity.map_or(0, |identity| identity.uid);
            let reason = format!("becoming user {uid} for the connection needs CAP_SETUID and CAP_SETGID: {error}");
            Failure::fatal(Asked::Denied, reason)
        }
        _ => Failure::fatal(Asked::Failed, format!("a thread for the connection: {error}")),
    };
    thread::Builder::new().name("ql-login".to_owned()).spawn(body).map_err(failed)?;
    match answer.await {
        Ok(result) => result.map_err(failed),
        Err(_) => Err(Failure::fatal(Asked::Failed, "the thread for the connection ended without an answer")),
    }
}
