# What the language's own installer calls its command: it takes -M, for "run main", which Debian's does not know.
cat > /usr/local/bin/clj <<'END'
#!/bin/sh
if [ "${1-}" = -M ]; then shift; fi
exec clojure "$@"
END
chmod 755 /usr/local/bin/clj

# The classes that every program loads, ready to be mapped into memory: a program then starts in half the time.
path=/usr/share/java/clojure-1.12.jar:/usr/share/java/spec.alpha.jar:/usr/share/java/core.specs.alpha.jar
cd "$(mktemp -d)"
cat > main.clj <<'END'
(require '[clojure.set] '[clojure.string])
(doseq [[key value] (group-by count (line-seq (java.io.BufferedReader. (java.io.StringReader. "a\nbc\nde"))))]
  (println (format "%d %s" key (clojure.string/join ", " value))))
END
java -Xint -XX:DumpLoadedClassList=loaded -cp $path clojure.main main.clj
# Sorted, and without those that a JVM makes up as it goes: the same list every time.
grep -v -e '^[#@]' -e source: loaded | cut -d ' ' -f 1 | grep -v -e '\$\$Lambda' -e LambdaForm -e Generated -e Proxy -e Species_ | sort -u > classes
java -Xmx256m -XX:+UseG1GC -Xshare:dump -XX:SharedClassListFile=classes -XX:SharedArchiveFile=/usr/local/lib/clojure.jsa -cp $path

# The certificates that Java trusts, without the moment at which each was added: the same package every time.
certificates=/etc/ssl/certs/java/cacerts
keytool -importkeystore -noprompt -srckeystore $certificates -srcstorepass changeit \
    -destkeystore certificates -deststoretype PKCS12 -deststorepass changeit \
    -J-Dkeystore.pkcs12.certProtectionAlgorithm=NONE -J-Dkeystore.pkcs12.macAlgorithm=NONE
cat certificates > $certificates
