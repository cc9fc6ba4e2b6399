//! The sessions that the kernel follows: what they do now, and the places of those that have ended.

use std::path::Path;

use agent_ebpf::{
    Session,
    session::{activity, mode},
    strategy,
};
use aya::maps::{HashMap as BpfHashMap, MapData, Queue};

use super::shared::SharedArray;
use crate::model::SessionState;

/// The kernel's sessions.
pub(super) struct Sessions {
    sessions: SharedArray<Session>,
    free: Queue<MapData, u32>,
    by_inode: BpfHashMap<MapData, u64, u32>,
    /// Places that were taken from their session at the last look; a program may still have been at work in them.
    leaving: Vec<u32>,
    /// Places that have been in use: the kernel takes them in order.
    touched: usize,
}

/// A session that the kernel follows.
#[derive(Clone, Copy, Debug)]
pub struct Followed {
    /// Slot of its server.
    pub slot: u32,
    /// Inode number of its socket.
    pub conn: u64,
    /// What it does; `None` where only userspace may know.
    pub state: Option<SessionState>,
}

impl Sessions {
    pub(super) fn new(
        sessions: SharedArray<Session>,
        free: Queue<MapData, u32>,
        by_inode: BpfHashMap<MapData, u64, u32>,
    ) -> Sessions {
        Sessions { sessions, free, by_inode, leaving: Vec::new(), touched: 0 }
    }

    /// Offers all places to the kernel.
    pub(super) fn offer(&mut self) -> Result<(), aya::maps::MapError> {
        (0..self.sessions.len() as u32).try_for_each(|place| self.free.push(place, 0))
    }

    /// The sessions that are there now.
    pub(super) fn all(&mut self) -> Vec<Followed> {
        self.places().map(|(_, session)| followed(&session)).collect()
    }

    fn places(&mut self) -> impl Iterator<Item = (u32, View)> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            loop {
                let session = self.sessions.get(at)?;
                // SAFETY: within the mapping; whole words that the kernel may change meanwhile.
                let view = unsafe { View::read(session) };
                if view.inode == 0 && at >= self.touched {
                    return None;
                }
                self.touched = self.touched.max(at + 1);
                at += 1;
                if view.inode != 0 {
                    return Some((at as u32 - 1, view));
                }
            }
        })
    }

    /// Ends the session at `place`, if it is that of the socket `conn`.
    pub(super) fn end(&mut self, place: u32, conn: u64) {
        let Some(session) = self.sessions.get(place as usize) else { return };
        // SAFETY: within the mapping.
        let view = unsafe { View::read(session) };
        if view.inode == conn && conn != 0 {
            self.take(place, &view);
        }
        self.touched = self.touched.max(place as usize + 1);
    }

    /// Frees what has ended since the last sweep and ends the sessions for which `gone` holds; `thorough`: also those whose process is gone.
    pub(super) fn sweep(&mut self, thorough: bool, gone: impl Fn(&Followed) -> bool) {
        for place in std::mem::take(&mut self.leaving) {
            if let Some(session) = self.sessions.get(place as usize) {
                // SAFETY: within the mapping, and out of reach of the programs since the last sweep.
                unsafe { session.write_bytes(0, 1) };
                // A queue as long as there are places is never full.
                let _ = self.free.push(place, 0);
            }
        }
        let ended: Vec<(u32, View)> = self
            .places()
            .filter(|(_, view)| {
                view.mode == mode::ENDED
                    || gone(&followed(view))
                    || thorough && !Path::new("/proc").join(view.tgid.to_string()).exists()
            })
            .collect();
        ended.iter().for_each(|(place, view)| self.take(*place, view));
    }

    fn take(&mut self, place: u32, view: &View) {
        let Some(session) = self.sessions.get(place as usize) else { return };
        if view.strategy != strategy::SOCKET as u16 {
            let _ = self.by_inode.remove(&view.inode);
        }
        // SAFETY: within the mapping; a place without a socket is nobody's, whatever still points to it.
        unsafe {
            (&raw mut (*session).sock).write_volatile(0);
            (&raw mut (*session).inode).write_volatile(0);
        }
        self.leaving.push(place);
    }

    /// From now on the session at `place` belongs to `group`, if it is that of the socket `conn`.
    pub(super) fn regroup(&self, place: u32, conn: u64, group: u64) {
        let Some(session) = self.sessions.get(place as usize) else { return };
        // SAFETY: within the mapping; a whole word that the kernel writes only at the start of a session.
        unsafe {
            if (&raw const (*session).inode).read_volatile() == conn {
                (&raw mut (*session).group).write_volatile(group);
            }
        }
    }
}

/// The parts of a session that are read here.
#[derive(Clone, Copy)]
struct View {
    inode: u64,
    slot: u32,
    tgid: u32,
    mode: u16,
    activity: u16,
    strategy: u16,
}

impl View {
    /// # Safety
    /// `session` must lie within the mapping.
    unsafe fn read(session: *const Session) -> View {
        // SAFETY: by contract.
        unsafe {
            View {
                inode: (&raw const (*session).inode).read_volatile(),
                slot: (&raw const (*session).slot).read_volatile(),
                tgid: (&raw const (*session).tgid).read_volatile(),
                mode: (&raw const (*session).mode).read_volatile(),
                activity: (&raw const (*session).activity).read_volatile(),
                strategy: (&raw const (*session).strategy).read_volatile(),
            }
        }
    }
}

fn followed(view: &View) -> Followed {
    let state = match (view.mode, view.activity) {
        (mode::IDLE | mode::ACTIVE | mode::TENTATIVE, activity::IDLE) => Some(SessionState::Idle),
        (mode::IDLE | mode::ACTIVE | mode::TENTATIVE, activity::ACTIVE) => Some(SessionState::Active),
        (mode::IDLE, activity::IDLE_IN_TRANSACTION) => Some(SessionState::IdleInTransaction),
        (mode::IDLE, activity::IDLE_IN_FAILED_TRANSACTION) => Some(SessionState::IdleInFailedTransaction),
        _ => None,
    };
    Followed { slot: view.slot, conn: view.inode, state }
}
