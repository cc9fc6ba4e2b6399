//! Finding the session of a socket, and making it on first sight.

use core::ffi::c_void;

use agent_ebpf::{
    Session, Target, blind,
    session::{activity, group, mode},
    strategy,
};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns, generated};

use crate::{
    kernel::{self, AF_INET, AF_INET6, AF_UNIX, Socket},
    maps::{FREE_SESSIONS, PORTS, SESSION_OF_INODE, SESSION_OF_SOCKET, SESSIONS, TARGETS, count},
};

/// A session and its place.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) index: u32,
    pub(crate) session: *mut Session,
}

/// The target that the current process is, if the hooks of `strategy` speak for it.
#[inline(always)]
pub(crate) fn target(strategy: u32) -> Option<Target> {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    // SAFETY: values are only replaced as a whole, and a torn read of a replaced one costs at most one record.
    let target = unsafe { TARGETS.get(tgid) }?;
    if target.strategy == strategy { Some(*target) } else { None }
}

/// The session of `sock`, a `struct sock` as the verifier knows it from a tracepoint's arguments, for [`strategy::SOCKET`].
#[inline(always)]
pub(crate) fn of_sock(sock: *mut c_void) -> Option<Place> {
    if !kernel::has_storage(sock) && !may_be_served(sock) {
        return None;
    }
    let map = (&raw const SESSION_OF_SOCKET).cast_mut().cast::<c_void>();
    // SAFETY: the helper takes the tracepoint's own pointer and gives a pointer to a value or null.
    let known = unsafe { generated::bpf_sk_storage_get(map, sock, core::ptr::null_mut(), 0) }.cast::<u32>();
    if !known.is_null() {
        // SAFETY: not null.
        let index = unsafe { *known };
        if let Some(session) = alive(index, sock as u64) {
            return Some(Place { index, session });
        }
    }
    let place = make(sock as u64, 0, strategy::SOCKET)?;
    // Kept whether it is new or had another session, which userspace has ended.
    if known.is_null() {
        let mut index = place.index;
        /// `BPF_SK_STORAGE_GET_F_CREATE`, include/uapi/linux/bpf.h.
        const CREATE: u64 = 1;
        // SAFETY: as above.
        unsafe { generated::bpf_sk_storage_get(map, sock, (&raw mut index).cast(), CREATE) };
    } else {
        // SAFETY: not null.
        unsafe { *known = place.index };
    }
    Some(place)
}

/// The session of a socket of the current process, for the other strategies.
#[inline(always)]
pub(crate) fn of_socket(strategy: u32, socket: &Socket) -> Option<Place> {
    // SAFETY: copied at once.
    if let Some(index) = unsafe { SESSION_OF_INODE.get(socket.inode) }.copied()
        && let Some(session) = alive(index, socket.sk)
    {
        return Some(Place { index, session });
    }
    let place = make(socket.sk, socket.inode, strategy)?;
    let _ = SESSION_OF_INODE.insert(socket.inode, place.index, 0);
    Some(place)
}

#[inline(always)]
fn alive(index: u32, sock: u64) -> Option<*mut Session> {
    let session = SESSIONS.get_ptr_mut(index)?;
    // SAFETY: the verifier proved it non-null.
    (unsafe { (*session).sock } == sock).then_some(session)
}

/// Whether a socket may be one that a watched server serves: nearly all others on the host are told apart here, by what the kernel has just used itself.
#[inline(always)]
fn may_be_served(sock: *mut c_void) -> bool {
    match kernel::family_of(sock) {
        AF_UNIX => true,
        AF_INET | AF_INET6 => {
            let port = kernel::port_of(sock);
            // SAFETY: a word that userspace replaces as a whole.
            let word = PORTS.get_ptr(u32::from(port >> 6)).map_or(0, |word| unsafe { *word });
            word >> (port & 63) & 1 == 1
        }
        _ => false,
    }
}

/// What a session is made for. In memory, since the verifier takes no typed pointer for a number.
#[repr(C)]
struct Wanted {
    sock: u64,
    /// 0 if it is not known.
    inode: u64,
    strategy: u64,
}

/// A session for a socket of the current process, if that is a server's for its clients.
#[inline(always)]
fn make(sock: u64, inode: u64, strategy: u32) -> Option<Place> {
    let wanted = Wanted { sock, inode, strategy: u64::from(strategy) };
    let index = session_make(&wanted) as u32;
    Some(Place { index, session: SESSIONS.get_ptr_mut(index)? })
}

/// The place of the new session, [`NONE`] for none.
#[unsafe(no_mangle)]
extern "C" fn session_make(wanted: *const Wanted) -> u64 {
    if wanted.is_null() {
        return u64::from(NONE);
    }
    // SAFETY: not null, and the verifier knows its size.
    let Wanted { sock, inode, strategy } = unsafe { wanted.read() };
    u64::from(new(sock, inode, strategy as u32).unwrap_or(NONE))
}

/// No place.
const NONE: u32 = u32::MAX;

#[inline(always)]
fn new(sock: u64, inode: u64, strategy: u32) -> Option<u32> {
    let target = target(strategy)?;
    let inode = if inode == 0 { kernel::inode_of_sock(sock)? } else { inode };
    let family = kernel::family(sock)?;
    let accepted = match family {
        AF_UNIX => kernel::named(sock),
        AF_INET | AF_INET6 => {
            let port = kernel::port(sock)?;
            port != 0 && target.ports.contains(&port)
        }
        _ => false,
    };
    if !accepted {
        return None;
    }
    let Ok(Some(index)) = FREE_SESSIONS.pop() else {
        count(agent_ebpf::loss::NO_SESSION);
        return None;
    };
    let session = SESSIONS.get_ptr_mut(index)?;
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: nobody else has this place: it came from the queue. Userspace left it zero.
    unsafe {
        (*session).sock = sock;
        let own = blind::scatter(now ^ inode);
        (*session).group = own & (group::PROVISIONAL - 1) | group::PROVISIONAL;
        (*session).names = own;
        (*session).place = index;
        (*session).slot = target.slot;
        (*session).tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
        (*session).family = family;
        (*session).mode = mode::LOST;
        (*session).activity = activity::UNKNOWN;
        (*session).strategy = target.strategy as u16;
        (*session).framing = target.framing as u16;
        (*session).inode = inode;
    }
    Some(index)
}
