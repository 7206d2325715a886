# The classes that every program loads, ready to be mapped into memory: a program then starts in half the time.
path=/usr/share/java/groovy-all.jar
cd "$(mktemp -d)"
cat > main.groovy <<'END'
import groovy.json.JsonSlurper

class Word {
    String text
}

def words = ["a", "bc"].collect { new Word(text: it) }
println words*.text.join(", ") + " ${new JsonSlurper().parseText('{"a": 1}')}"
END
java -Xint -XX:DumpLoadedClassList=loaded -cp $path groovy.ui.GroovyMain main.groovy
# Sorted, and without those that a JVM makes up as it goes: the same list every time.
grep -v -e '^[#@]' -e source: loaded | cut -d ' ' -f 1 | grep -v -e '\$\$Lambda' -e LambdaForm -e Generated -e Proxy -e Species_ | sort -u > classes
java -Xmx256m -XX:+UseG1GC -Xshare:dump -XX:SharedClassListFile=classes -XX:SharedArchiveFile=/usr/local/lib/groovy.jsa -cp $path

# The certificates that Java trusts, without the moment at which each was added: the same package every time.
certificates=/etc/ssl/certs/java/cacerts
keytool -importkeystore -noprompt -srckeystore $certificates -srcstorepass changeit \
    -destkeystore certificates -deststoretype PKCS12 -deststorepass changeit \
    -J-Dkeystore.pkcs12.certProtectionAlgorithm=NONE -J-Dkeystore.pkcs12.macAlgorithm=NONE
cat certificates > $certificates
