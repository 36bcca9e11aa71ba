//! From a function's source, or from a program built elsewhere, to an OCI image.
//!
//! ```text
//!  template::create ──> folder ──> settings::load ──> c::build, go::build, rust::build ──> program file
//!                                        │                             │
//!                                        │ program built elsewhere ──> program::check ──> Image::from_program
//!                                        │
//!                       Python, Node ──> interpreted::build ──> LayeredImage
//!                            Runtimes::make ──^ (once)
//!                         Dockerfile ──> dockerfile::build ──> ForeignImage
//!
//!  folder with a root file system ──> RootImage::from_folder
//!  stack.yaml ──> stack::load ──> settings of several functions
//! ```
//!
//! The crate reads and writes files and runs compilers and package managers; it never touches the network itself. What it
//! makes is pushed by whoever holds a connection to a registry. SDKs and templates are embedded, so that nothing but the
//! language's own tools must be installed.

pub mod c;
pub mod compiled;
pub mod dockerfile;
pub mod go;
pub mod image;
pub mod interpreted;
pub mod language;
pub mod layer;
pub mod name;
pub mod packages;
pub mod program;
pub mod root;
pub mod runtime;
pub mod rust;
pub mod settings;
pub mod stack;
pub mod template;

pub use image::{Image, LayeredImage};
pub use language::Language;
pub use name::FunctionName;
pub use root::RootImage;
pub use runtime::{RuntimeLanguage, Runtimes};
pub use settings::FunctionSettings;
