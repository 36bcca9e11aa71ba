//! Real programs and language runtimes, as people would bring them: built or collected from this machine, unchanged.
//!
//! - [`rootfs`]: a root file system folder, put together from files of this machine;
//! - [`programs`]: the programs, how each runs natively and as a function, and what each needs to be there;
//! - [`native`]: a program as an ordinary process on a free loopback port;
//! - `build`: compilers, and the folder that keeps what they made until its sources change.
//!
//! The tests compare, `bench/` measures.

mod build;
pub mod native;
pub mod programs;
pub mod rootfs;

pub use build::FixtureError;
