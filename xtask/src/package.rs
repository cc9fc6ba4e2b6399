//! `cargo xtask package`: what users install.
//!
//! Of the extension, for each major version of PostgreSQL: a deb for Debian and Ubuntu (the layout of postgresql-common), an rpm for Red Hat and its kin
//! (the layout of the PostgreSQL project's own packages), and a tar for everything else. Each is unpacked again and compared with what went in.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::{
    command::{command, output, run as execute},
    layout, querylens,
    setup::{self, Purpose},
};

/// Arguments of the verb.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// What to package.
    #[arg(value_enum)]
    what: Product,
    /// Major versions of PostgreSQL.
    #[arg(long = "pg", num_args = 1.., required = true, value_parser = querylens::major())]
    majors: Vec<u32>,
}

/// What can be packaged.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Product {
    /// The extension pg_querylens.
    Querylens,
}

/// The verb.
pub(crate) fn run(options: &Options) -> Result<()> {
    let Product::Querylens = options.what;
    setup::ensure(&[Purpose::Build, Purpose::Test, Purpose::Extension, Purpose::Package], false)?;
    querylens::provide(&options.majors)?;
    for major in &options.majors {
        let extension = Extension::new(*major)?;
        for package in [extension.deb()?, extension.rpm()?, extension.tar()?] {
            println!("{}", package.display());
        }
    }
    Ok(())
}

/// Where packages are made.
fn packages() -> PathBuf {
    layout::target().join("packages")
}

/// An empty directory.
fn fresh(dir: PathBuf) -> Result<PathBuf> {
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).with_context(|| format!("{} is no text", path.display()))
}

fn write(path: &Path, content: &str) -> Result<()> {
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

/// Puts a file into a tree, readable by everybody; the library executable, as linkers leave libraries.
fn place(file: &Path, tree: &Path, dir: &str) -> Result<()> {
    let dir = tree.join(dir.trim_start_matches('/'));
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let name = file.file_name().with_context(|| format!("{} has no name", file.display()))?;
    let copy = dir.join(name);
    fs::copy(file, &copy).with_context(|| format!("cannot copy {}", file.display()))?;
    let mode = if copy.extension().is_some_and(|ending| ending == "so") { 0o755 } else { 0o644 };
    fs::set_permissions(&copy, fs::Permissions::from_mode(mode)).with_context(|| copy.display().to_string())
}

/// Where a kind of package puts the extension's files.
struct Places {
    libraries: String,
    scripts: String,
    readme: String,
    license: String,
}

/// The extension for one major version.
struct Extension {
    major: u32,
    version: String,
    /// Without what only debuggers read.
    library: PathBuf,
    scripts: Vec<PathBuf>,
    /// Where everything about it is made.
    work: PathBuf,
}

impl Extension {
    fn new(major: u32) -> Result<Extension> {
        let work = fresh(packages().join(format!("work-{major}")))?;
        let (built, library) = (querylens::build(major)?, work.join("pg_querylens.so"));
        execute(command("strip").arg("--strip-debug").arg("-o").arg(&library).arg(built))?;
        let mut scripts = querylens::scripts()?;
        scripts.push(querylens::source("pg_querylens.control"));
        Ok(Extension { major, version: querylens::version()?, library, scripts, work })
    }

    /// The files laid out in a directory of this name.
    fn stage(&self, name: &str, places: &Places) -> Result<PathBuf> {
        let tree = fresh(self.work.join(name))?;
        place(&self.library, &tree, &places.libraries)?;
        self.scripts.iter().try_for_each(|script| place(script, &tree, &places.scripts))?;
        place(&querylens::source("README.md"), &tree, &places.readme)?;
        place(&layout::checkout().join("LICENSE"), &tree, &places.license)?;
        Ok(tree)
    }

    /// Whether a package that was unpacked into `tree` holds what went in.
    fn verify(&self, tree: &Path, places: &Places) -> Result<()> {
        let library = [(&self.library, &places.libraries)];
        let scripts = self.scripts.iter().map(|script| (script, &places.scripts));
        for (file, dir) in library.into_iter().chain(scripts) {
            let name = file.file_name().context("a file has no name")?;
            let packed = tree.join(dir.trim_start_matches('/')).join(name);
            let same = fs::read(&packed).with_context(|| format!("not in the package: {}", packed.display()))?;
            ensure!(same == fs::read(file)?, "{} is not what was packaged", packed.display());
        }
        Ok(())
    }

    /// The file of a packaging system under packaging/, with `@NAME@` replaced.
    fn filled(name: &str, values: &[(&str, &str)]) -> Result<String> {
        let file = layout::checkout().join("packaging/pg_querylens").join(name);
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        Ok(values.iter().fold(text, |text, (name, value)| text.replace(&format!("@{name}@"), value)))
    }

    fn deb(&self) -> Result<PathBuf> {
        let Extension { major, version, .. } = self;
        let documents = format!("/usr/share/doc/postgresql-{major}-pg-querylens");
        let places = Places {
            libraries: format!("/usr/lib/postgresql/{major}/lib"),
            scripts: format!("/usr/share/postgresql/{major}/extension"),
            readme: documents.clone(),
            license: documents.clone(),
        };
        let tree = self.stage("deb", &places)?;
        let documents = tree.join(documents.trim_start_matches('/'));
        // Where Debian looks for it.
        fs::rename(documents.join("LICENSE"), documents.join("copyright"))?;
        let architecture = output(command("dpkg").arg("--print-architecture"))?;
        let size: u64 = output(command("du").args(["-sk"]).arg(&tree))?
            .split_whitespace()
            .next()
            .context("du says nothing")?
            .parse()
            .context("size in KiB")?;
        let (major_text, size) = (major.to_string(), size.to_string());
        let values = [
            ("MAJOR", major_text.as_str()),
            ("VERSION", version),
            ("ARCHITECTURE", architecture.trim()),
            ("SIZE", &size),
            ("DEPENDS", &self.libraries_needed()?),
        ];
        let control = fresh(tree.join("DEBIAN"))?.join("control");
        write(&control, &Extension::filled("control", &values)?)?;
        let name = format!("postgresql-{major}-pg-querylens_{version}-1_{}.deb", architecture.trim());
        let package = packages().join(name);
        execute(command("dpkg-deb").args(["--root-owner-group", "--build"]).arg(&tree).arg(&package))?;
        let unpacked = fresh(self.work.join("deb-unpacked"))?;
        execute(command("dpkg-deb").arg("--extract").arg(&package).arg(&unpacked))?;
        self.verify(&unpacked, &places)?;
        Ok(package)
    }

    /// Debian's packages with the libraries that this one needs, and their versions.
    fn libraries_needed(&self) -> Result<String> {
        let dir = fresh(self.work.join("shlibdeps"))?;
        let control = fresh(dir.join("debian"))?.join("control");
        write(&control, "Source: pg-querylens\n\nPackage: pg-querylens\nArchitecture: any\n")?;
        let mut shlibdeps = command("dpkg-shlibdeps");
        let text = output(shlibdeps.arg("-O").arg(format!("-e{}", text(&self.library)?)).current_dir(&dir))?;
        let depends = text.lines().find_map(|line| line.strip_prefix("shlibs:Depends="));
        depends.map(str::to_owned).context("dpkg-shlibdeps names no library")
    }

    fn rpm(&self) -> Result<PathBuf> {
        let Extension { major, version, .. } = self;
        let places = Places {
            libraries: format!("/usr/pgsql-{major}/lib"),
            scripts: format!("/usr/pgsql-{major}/share/extension"),
            readme: format!("/usr/share/doc/pg_querylens_{major}"),
            license: format!("/usr/share/licenses/pg_querylens_{major}"),
        };
        let tree = self.stage("rpm", &places)?;
        let top = fresh(self.work.join("rpmbuild"))?;
        let definitions = [
            format!("_topdir {}", text(&std::path::absolute(&top)?)?),
            format!("staged {}", text(&std::path::absolute(&tree)?)?),
            format!("major {major}"),
            format!("extension_version {version}"),
            "_build_name_fmt %{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm".to_owned(),
        ];
        let specification = layout::checkout().join("packaging/pg_querylens/pg_querylens.spec");
        let definitions = definitions.iter().flat_map(|definition| ["--define", definition.as_str()]);
        execute(command("rpmbuild").args(["-bb", "--quiet"]).args(definitions).arg(specification))?;
        let machine = output(command("rpm").args(["--eval", "%{_arch}"]))?;
        let name = format!("pg_querylens_{major}-{version}-1.{}.rpm", machine.trim());
        let package = packages().join(&name);
        fs::copy(top.join("RPMS").join(&name), &package).with_context(|| format!("rpmbuild made no {name}"))?;
        let unpacked = fresh(self.work.join("rpm-unpacked"))?;
        let unpack = "rpm2cpio \"$0\" | cpio --extract --make-directories --quiet";
        let package = std::path::absolute(package)?;
        execute(command("sh").args(["-ec", unpack]).arg(&package).current_dir(&unpacked))?;
        self.verify(&unpacked, &places)?;
        Ok(package)
    }

    fn tar(&self) -> Result<PathBuf> {
        let Extension { major, version, .. } = self;
        let name = format!("pg_querylens-{version}-pg{major}-linux-{}", std::env::consts::ARCH);
        let within = |dir: &str| format!("{name}/{dir}");
        let places = Places {
            libraries: within("lib"),
            scripts: within("share/extension"),
            readme: within(""),
            license: within(""),
        };
        let tree = self.stage("tar", &places)?;
        let package = packages().join(format!("{name}.tar.gz"));
        // The same files give the same bytes.
        let same = ["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0"];
        execute(command("tar").args(same).arg("-czf").arg(&package).arg("-C").arg(&tree).arg(&name))?;
        let unpacked = fresh(self.work.join("tar-unpacked"))?;
        execute(command("tar").arg("-xf").arg(&package).arg("-C").arg(&unpacked))?;
        self.verify(&unpacked, &places)?;
        Ok(package)
    }
}
