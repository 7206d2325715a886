# What the compiler's own script does, without asking java for its version at every start, and with the compiler's classes
# loaded and linked ahead: half the time of a small program.
cat > /usr/local/bin/kotlinc <<'END'
#!/bin/bash
java=(-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData --enable-native-access=ALL-UNNAMED --sun-misc-unsafe-memory-access=allow)
if [ -e /opt/kotlin/kotlinc.aot ]; then java+=(-XX:AOTCache=/opt/kotlin/kotlinc.aot -Xlog:disable); fi
words=()
for word; do
    case $word in
        -J*) java+=("${word#-J}") ;;
        *) words+=("$word") ;;
    esac
done
exec java "${java[@]}" -cp /opt/kotlin/lib/kotlin-compiler.jar org.jetbrains.kotlin.cli.jvm.K2JVMCompiler "${words[@]}"
END
# The runner, in a process less than the one beside the compiler: kotlin MainKt, kotlin main.jar, kotlin main.kts, kotlin -e CODE.
cat > /usr/local/bin/kotlin <<'END'
#!/bin/bash
java=(-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData --enable-native-access=ALL-UNNAMED --sun-misc-unsafe-memory-access=allow)
while [[ ${1-} == -J* ]]; do java+=("${1#-J}"); shift; done
exec java "${java[@]}" -Dkotlin.home=/opt/kotlin -cp /opt/kotlin/lib/kotlin-runner.jar org.jetbrains.kotlin.runner.Main "$@"
END
chmod 755 /usr/local/bin/kotlinc /usr/local/bin/kotlin
mkdir -p "$HOME"
cd "$HOME"
cat > main.kt <<'END'
data class Letter(val value: String, val count: Int = 1)

fun main(args: Array<String>) {
    val letters = generateSequence(::readLine).map { Letter(it) }.toMutableList()
    for (word in args) letters.add(Letter(word, word.length))
    println(letters.sortedBy { it.count }.joinToString(" ") { "${it.value}: ${it.count}" })
}
END
kotlinc -J-XX:AOTCacheOutput=/opt/kotlin/kotlinc.aot -nowarn -include-runtime -d main.jar main.kt
# Needed by editors and for other targets than the JVM.
rm -f /opt/kotlin/lib/*-sources.jar /opt/kotlin/bin/*.bat
