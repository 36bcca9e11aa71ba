//! From a function's source, or from a program built elsewhere, to an OCI image.
//!
//! ```text
//!  template::create ──> folder ──> settings::load ──> c::build ──> program file
//!                                                                      │
//!                          program built elsewhere ──> program::check ─┴─> Image::from_program
//!
//!  folder with a root file system ──> RootImage::from_folder
//! ```
//!
//! The crate reads and writes files and runs the compiler; it never touches the network. What it makes is pushed by
//! whoever holds a connection to a registry. SDK and templates are embedded, so that nothing but the compiler must be
//! installed.

pub mod c;
pub mod image;
pub mod name;
pub mod program;
pub mod root;
pub mod settings;
pub mod template;

pub use image::Image;
pub use name::FunctionName;
pub use root::RootImage;
pub use settings::FunctionSettings;
