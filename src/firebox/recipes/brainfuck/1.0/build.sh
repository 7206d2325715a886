# brainfuck SOURCE [PROGRAM]: makes the program, or runs it at once.
cat > /usr/local/bin/brainfuck <<'END'
#!/bin/sh -eu
if [ "$1" = --version ]; then
    echo 1.0.0
    exit
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
{
    cat <<'C'
#include <stdio.h>
static unsigned char cells[65536];
static unsigned short at;
static void put(void) { putchar(cells[at]); if (cells[at] == '\n') fflush(stdout); }
static void get(void) { fflush(stdout); int read = getchar(); cells[at] = read == EOF ? 0 : read; }
int main(void)
{
C
    # Runs of one command become one statement.
    tr -cd '<>+.,[]-' < "$1" | sed 's/\[-\]/0/g' | awk '
        BEGIN { FS = ""; RS = "^$"; part["+"] = "cells[at] += "; part["-"] = "cells[at] -= "; part[">"] = "at += "; part["<"] = "at -= " }
        {
            for (i = 1; i <= length($0); i += count) {
                command = substr($0, i, 1)
                count = 1
                if (command in part) {
                    while (substr($0, i + count, 1) == command) count++
                    print part[command] count ";"
                }
                else if (command == "0") print "cells[at] = 0;"
                else if (command == ".") print "put();"
                else if (command == ",") print "get();"
                else if (command == "[") { print "while (cells[at]) {"; depth++ }
                else if (command == "]") { print "}"; if (--depth < 0) exit }
            }
        }
        END { if (depth) { print (depth < 0 ? "a ] too many" : "a ] is missing") > "/dev/stderr"; exit 1 } }'
    echo 'return 0; }'
} > "$folder/main.c"
if [ $# = 1 ]; then tcc -run "$folder/main.c"; else tcc -o "$2" "$folder/main.c"; fi
END
chmod 755 /usr/local/bin/brainfuck
