//! Per-CPU arrays of the kernel side, read slot by slot into the same memory. aya allocates for each look-up, and with
//! musl that costs several times as much as the look-up.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use aya::{
    Pod,
    maps::{Map, MapData, MapError, PerCpuArray},
    sys::SyscallError,
    util::nr_cpus,
};

/// `BPF_MAP_LOOKUP_ELEM` (include/uapi/linux/bpf.h).
const MAP_LOOKUP_ELEM: libc::c_long = 1;

/// `union bpf_attr` for [`MAP_LOOKUP_ELEM`].
#[repr(C)]
struct LookUpAttr {
    map_fd: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// See the module.
pub(super) struct PerCpuSlots<V> {
    map: MapData,
    /// Possible CPUs: the kernel writes a value for each of them.
    cpus: usize,
    _values: PhantomData<V>,
}

impl<V: Pod> PerCpuSlots<V> {
    /// # Errors
    ///
    /// When the map is of another kind, or its values are.
    pub fn new(map: Map) -> Result<Self, MapError> {
        // The kernel rounds the size of a value up to eight bytes.
        const { assert!(size_of::<V>().is_multiple_of(8)) };
        PerCpuArray::<_, V>::try_from(&map)?;
        let Map::PerCpuArray(map) = map else {
            // It was one a line above.
            return Err(MapError::InvalidMapType { map_type: 0 });
        };
        let cpus = nr_cpus().map_err(|(_, error)| MapError::IoError(error))?;
        Ok(Self {
            map,
            cpus,
            _values: PhantomData,
        })
    }

    /// Passes on the values of each of these slots, one for each CPU.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn each(
        &self,
        slots: impl Iterator<Item = u32>,
        mut take: impl FnMut(u32, &[V]),
    ) -> Result<(), MapError> {
        // SAFETY: every byte pattern is a valid value (Pod).
        let mut values = vec![unsafe { std::mem::zeroed::<V>() }; self.cpus];
        for slot in slots {
            look_up(self.map.fd().as_fd(), slot, &mut values).map_err(|io_error| {
                MapError::from(SyscallError {
                    call: "bpf_map_lookup_elem",
                    io_error,
                })
            })?;
            take(slot, &values);
        }
        Ok(())
    }
}

/// `values` has room for all possible CPUs.
fn look_up<V: Pod>(map: BorrowedFd<'_>, slot: u32, values: &mut [V]) -> io::Result<()> {
    let attr = LookUpAttr {
        map_fd: map.as_raw_fd() as u32,
        _pad: 0,
        key: (&raw const slot) as u64,
        value: values.as_mut_ptr() as u64,
        flags: 0,
    };
    // SAFETY: the kernel reads a key of four bytes and writes one value for each possible CPU; both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            MAP_LOOKUP_ELEM,
            &raw const attr,
            size_of::<LookUpAttr>(),
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
