"""Compiler arguments: which are allowed, and which must not be."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

import firebox
from firebox.domain.errors import InvalidRequest
from firebox.domain.model import Job
from firebox.engine.plan import check_compile_args, command_line
from firebox.runtimes.definition import Definition, read_definition, shipped_definitions
from firebox.runtimes.runtime import Runtime

_WORDS = """
-fplugin=./x.so -fplugin-arg-x-y=1 -wrapper @args -specs=./s -specs --specs=./s -B. -B/tmp -I/usr/include -I.. -I../x
-Ia/../b -I -iquote/ -isystem/usr
-include -include/etc/passwd -imacros -x -xc -xnone -o -oa -obj -c -S -E -M -MMD -MF/tmp/x -Wl,-T,x -Wa,-I/ -Wp,-MD,x
-Xlinker -Xclang -Xassembler -Xpreprocessor
-load -mllvm -fpass-plugin=x -fuse-ld=/tmp/x -fuse-ld=gold --ld-path=/x -l:x.so -L/tmp -L. -T script -Tscript -dumpdir
-save-temps -fdump-tree-all=/tmp/x
-fprofile-use=/etc/passwd -fsanitize-blacklist=/etc/passwd -fdebug-prefix-map=a=b -ffile-prefix-map=a=b --sysroot=/
-idirafter/ -iprefix/ -no-canonical-prefixes
-resource-dir=/ -gcc-toolchain=/ --config=x -cc1 -### -v= -fmodule-file=x -fmodules-cache-path=x
-fcompilation-database=x -stdlib=/x -rpath=/x
-Clinker=/bin/sh -Clink-arg=x -Clink-args=x -Clinker-flavor=ld -Cincremental=/tmp -Cprofile-use=x -Car=x -C --extern=x
-L/x -Zunstable --out-dir=x --emit=asm --sysroot=x
-toolexec=/bin/sh -toolexec -overlay=x -modfile=x -exec=x -o=x -pkgdir=x -ldflags=-extld=/bin/sh
-ldflags=-linkmode=external -gcflags=-importcfg -asmflags=-I/ -C=/tmp -C/tmp -n
-ldflags=-X -extldflags=x -work -mod=mod -buildmode=plugin -ldflags=-X\tmain.a=b
-processorpath -processor -processorpath=x --processor-path=x -proc:full -cp -cp/ -classpath -d -d/tmp -s/tmp
-sourcepath -Xplugin:x -J-agentlib:x -J-javaagent:x -Xbootclasspath/p:x -h -A
--module-path=x --patch-module=x -XDx=y -implicit:none -Xmaxerrs
-pgmF=x -pgmF -F -optP-I/ -fllvm -package=x -package-db=x -odir/ -outputdir -dynload -fplugin-package=x -e
-ghci-script=x -optl-T
--passC:x --passL:x -p:/ --path:/ --import:/x --include:x --cincludes:x --nimcache:/x --clib:x --cc:x --gcc.exe:x -r
--run --out:x --outdir:x
-r:x -reference:x -lib:/ -pkg:x -res:x -resource:x -recurse:x -out:x -doc:x -keyfile:x -addmodule:x -main:x -a:x
-analyzer:x
-Fu/ -Fi/ -FE/ -Fl/ -FD/ -e/ -n @x -k-T -XP/x -Xr/x -al -B -Cp -vq -T -o/tmp
-import-objc-header -load-plugin-library -Xcc -Xllvm -Xfrontend -sdk -tools-directory -working-directory -use-ld=x
-module-cache-path -emit-library -I/tmp -swift-version
-femit-bin=x -lc:x --libc -cflags --zig-lib-dir -I -isystem -fsoname=x -target --cache-dir --mod -fPIC=x
-largs -bargs -cargs -gnatec=x -gnatem=x -gnateD=x -gnatG --RTS=/x -aI/ -aO/ -A/ -P -eS -f=x -gnateT=x
-J= -J/ -cpp=x -fintrinsic-modules-path=/ -Hf=x -Hd=x -Xf=x -Df=x -deps=x -conf=x -od=x -of=x -lib -run -linkonly
-Xplugin=x -P -Xprofile=x -Xbuild-file=x -Xfriend-paths=x -Xklib=x -Xdump-directory=x -Xjava-source-roots=x -Xcompiler-plugin=x
-Xexplicit-api=a/b -kotlin-home -jdk-home -script -opt-in=a/b -language-version=@x -jvm-target=../x -J-Xmx9g -J
-Xpluginsdir:x -Xplugin-require:x -Xgenerate-phase-graph:x -Ydump-classes:x -Ygen-asmp:x -Yprofile-destination:x
-toolcp -bootclasspath -dependencyfile -make:x -language:a/b -source:../x -Wconf:src=x:s
-pp -ppx -pp=x -ppx=x -cc -cc=x -ccopt -ccopt=-fplugin=x -cclib -cclib=-lx -I=. -I=/ -I=+../x -impl -intf -plugin
-args -args0 -open=x
-w=a/b -where -output-obj -dllpath -use-runtime x.cmxa ../str.cmxa ./str.cmxa str.cma
--link-flags=x --prelude=x --emit=asm --cross-compile --target=x --mcpu=a/b --define=x=y/z --cache=x --stdin-filename=x
--vapidir=x --pkg=../x --pkg=/x --pkg=-x --pkg=x/y -X --Xcc=x --cc=x --pkg-config=x --girdir=x --gresources=x
--run-args=x --basedir=/
-C --header=x --vapi=x --deps=x --symbols=x --includedir=x --ccode --define=a/b
-A-fplugin=x -Q-T,x -conf=x -K -T/x -t/x -P/x -ext=x -std=../x -std=a/b -std= -i -j -b -m
--simpleresolution --lib:x -I:x --out:x --resource:x --win32res:x --use:x --load:x --exec --compilertool:x --keyfile:x
--doc:x --sig:x
--pathmap:a=b --staticlink:x --standalone --define:a/b -imports:x -sdkpath:x -vbruntime:x -rootnamespace:x -errorlog:x -define:a"b
--outDir --outFile=x --project -p --typeRoots --rootDir --tsBuildInfoFile --generateTrace --init --build --watch
--strict=x --plugins
; $(x) `x` a.c /etc/passwd ../x main.c -- - =
"""
REFUSED = _WORDS.split()

ALLOWED = {
    ("c", "gcc"): "-O3 -Ofast -O -g -g3 -std=c11 -std=gnu++20 -Wall -Wextra -Werror=return-type -Wno-unused "
    "-Wframe-larger-than=99 -w -DX -DX=1 -DNAME=a,b -UX -fsanitize=address,undefined -fno-sanitize-recover "
    "-fwrapv -fno-omit-frame-pointer -march=native -mavx2 -mno-sse4.2 -lm -lgmp -Iinclude "
    "-I./a/b.d -pthread -static -s -pedantic-errors",
    ("c++", "gcc"): "-std=c++20 -fno-rtti -fconcepts -fconstexpr-depth=9999 -ftemplate-depth=100",
    ("rust", "rustc"): '-Copt-level=3 -Ctarget-cpu=native -g --cfg=feature="x" -Awarnings -Cpanic=abort',
    ("go", "go"): "-tags=x,y -trimpath -gcflags=all=-N",
    ("java", "javac"): "-Xlint:all -Xlint -parameters --release=17 -g:none",
    ("haskell", "ghc"): "-O2 -Wall -XGADTs -threaded",
    ("fortran", "gfortran"): "-O3 -ffree-form -fcheck=all -fdefault-real-8",
    ("nim", "nim"): "-d:release --mm:orc --opt:speed",
    ("objective-c", "gcc"): "-O3 -Wall -DX=1 -fobjc-nilcheck -fno-nil-receivers",
    (
        "kotlin",
        "kotlinc",
    ): "-Werror -Xcontext-parameters -Xassertions=jvm -opt-in=kotlin.ExperimentalStdlibApi -language-version=2.3",
    (
        "scala",
        "scalac",
    ): "-deprecation -Xfatal-warnings -Xlint:infer-any -Ywarn-dead-code -language:implicitConversions,higherKinds",
    ("ocaml", "ocamlopt"): "-O3 -unsafe -inline=5 -w=+a-4 -warn-error=-a -I=+str str.cmxa",
    ("crystal", "crystal"): "--release -O2 --error-on-warnings -Dpreview_mt --mcpu=native",
    ("vala", "valac"): "-g --define=HELLO --pkg=gio-2.0 --target-glib=2.56 --enable-checking --disable-assert",
    ("cobol", "cobc"): "-O2 -free -debug -Wall -Wno-unfinished -std=ibm -DABC=1 -fno-trunc -fsign=ASCII",
    ("fsharp", "fsharpc"): "--optimize+ --warnaserror+ --nowarn:40,64 --warnon:1182 --define:X --langversion:4.7",
    ("fsharp.net", "dotnet"): "--optimize+ --warnaserror+ --nowarn:40,64 --warnon:1182 --define:X --langversion:4.7",
    ("basic.net", "dotnet"): "-optionstrict+ -optioninfer- -optioncompare:text -define:X=1 -nowarn:42353 -warnaserror+",
    ("csharp.net", "dotnet"): "-checked+ -unsafe -nullable:enable -define:A;B -nowarn:CS0168 -langversion:13",
    ("csharp", "mcs"): "-optimize -define:A;B -warn:4",
    ("pascal", "fpc"): "-O2 -Mobjfpc -Cr -gl",
    ("zig", "zig"): "-OReleaseFast -fsingle-threaded",
    ("typescript", "tsc"): "--strict --noImplicitAny --experimentalDecorators",
    ("ada", "gnatmake"): "-O2 -gnat2022 -gnata -gnatwa",
    ("swift", "swiftc"): "-O -DX -warnings-as-errors",
    ("d", "ldmd2"): "-release -inline -version=X",
}

_LIBRARIES = ["-load", "-load-plugin-library", "-largs", "-lib", "-linkonly"]
HARMLESS = {
    **{language: [*_LIBRARIES, "-Df=x"] for language in ("c", "c++", "fortran", "objective-c")},
    "d": [*_LIBRARIES, "-d"],
    "pascal": ["-dumpdir", "-dynload", "-dependencyfile", "-dllpath"],
}
"""What another compiler would be dangerous with and this one takes for the name of a library or of a definition."""

OF_RECIPES = [
    read_definition(file.read_text(), file.name) for file in Path(firebox.__file__).parent.glob("recipes/*/*/runtimes/*.toml")
]
WITH_ARGUMENTS = [definition for definition in (*shipped_definitions(), *OF_RECIPES) if definition.compile_args]


of_each_compiler = pytest.mark.parametrize(
    "definition", WITH_ARGUMENTS, ids=lambda definition: f"{definition.language}-{definition.detect.programs[0]}"
)


def runtime_of(definition: Definition) -> Runtime:
    return Runtime(
        language=definition.language,
        version="1.0.0",
        main_name=definition.main_name,
        extensions=tuple(definition.extensions),
        compile=tuple(map(tuple, definition.compile)),
        compile_args=tuple(definition.compile_args),
        run=tuple(definition.run),
    )


@of_each_compiler
def test_attack_39_arguments_that_reach_further_are_refused_by_every_compiler(definition: Definition) -> None:
    runtime = runtime_of(definition)
    for word in REFUSED:
        if word in HARMLESS.get(definition.language, ()):
            continue
        with pytest.raises(InvalidRequest) as refused:
            runtime.check_compile_args((word,))
        assert refused.value.where == "compile_args[0]", word
    for word in ("", " ", "-O2\n", "-O2 -fplugin=x", "-DX=1\n-fplugin=x", "-DX=\0", "-W" + "a" * 600):
        with pytest.raises(InvalidRequest):
            runtime.check_compile_args((word,))


@of_each_compiler
def test_common_arguments_are_allowed_and_reach_the_compiler(definition: Definition) -> None:
    words = tuple(ALLOWED.get((definition.language, definition.detect.programs[0]), "-O").split())
    job = Job(language=definition.language, compile_args=words)
    check_compile_args(job, runtime_of(definition))
    line = " ".join(command_line("compile", job, runtime_of(definition), [definition.main_name], 0))
    assert all(word in line for word in words if '"' not in word)


def test_where_there_is_no_compiler_there_are_no_arguments() -> None:
    runtime = replace(runtime_of(WITH_ARGUMENTS[0]), compile=(), compile_args=())
    with pytest.raises(InvalidRequest, match="no compiler that takes arguments"):
        check_compile_args(Job(language="x", compile_args=("-O2",)), runtime)
    with pytest.raises(InvalidRequest, match="replaces the compiler"):
        check_compile_args(Job(language="x", command="true", compile_args=("-O2",)), runtime_of(WITH_ARGUMENTS[0]))
