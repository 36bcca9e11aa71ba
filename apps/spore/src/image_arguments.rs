//! What the user can type behind `spore image`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

/// What can be done with images.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub(crate) enum ImageCommand {
    /// List the stored images, and which functions use them
    #[command(visible_alias = "ls")]
    List(ImageListArguments),
    /// Show what an image is: program, settings, layers
    Inspect(ImageInspectArguments),
    /// Let the daemon fetch an image from a registry
    #[command(
        after_help = "Examples:\n  spore image pull alpine\n  spore image pull registry.example.com/team/app:1.0\n\nCredentials are those in Docker's config.json: yours, which are sent along, or else those of the user who runs the daemon."
    )]
    Pull(ImagePullArguments),
    /// Let the daemon send an image to a registry
    #[command(after_help = "Example:\n  spore image push hello registry.example.com/team/hello:1.0")]
    Push(ImagePushArguments),
    /// Remove images, unless functions use them
    #[command(visible_alias = "rm")]
    Remove(ImageArgument),
    /// Remove what no image and no function needs any more
    Prune(ImagePruneArguments),
    /// Take images from an OCI image layout (folder or archive), or from what `docker save` wrote
    #[command(
        after_help = "Examples:\n  spore image import ./layout --name team/hello:1.0\n  docker save alpine > alpine.tar; spore image import alpine.tar"
    )]
    Import(ImageImportArguments),
    /// Write an image as an OCI image layout; into an archive, which `docker load` takes too, if the name ends in .tar
    #[command(
        after_help = "Examples:\n  spore image export hello hello.tar\n  spore image export hello ./layout"
    )]
    Export(ImageExportArguments),
    /// Read everything and compare it with its digests
    Check(ImageCheckArguments),
}

#[derive(Debug, Args)]
pub(crate) struct ImageListArguments {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImageInspectArguments {
    /// Name of the image
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImagePullArguments {
    /// Name of the image; without a registry, that of an alias or of docker.io
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Of an index, pull the images for other machines too: all of it can then be pushed elsewhere
    #[arg(long)]
    pub(crate) all_platforms: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImagePushArguments {
    /// Name of the stored image
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// What it is called there [default: its name]
    #[arg(value_name = "DESTINATION")]
    pub(crate) destination: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ImageArgument {
    /// Names of images, or sha256 digests as NAME@sha256:DIGEST
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Images that have a name or that a function uses stay, and what was pushed or pulled within the time that\n--unused-for says, for it may belong to an image that is on its way."
)]
pub(crate) struct ImagePruneArguments {
    /// How long nobody must have used what is removed
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = crate::duration::parse)]
    pub(crate) unused_for: Duration,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImageImportArguments {
    /// Folder or archive
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// What the image is called here [default: as in the layout or archive]
    #[arg(long, value_name = "NAME[:TAG]")]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ImageExportArguments {
    /// Name of the stored image
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Folder or archive (*.tar), which must not be there
    #[arg(value_name = "PATH")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ImageCheckArguments {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
