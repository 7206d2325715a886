"""Programs that look at everything in which an interpreter that was started ahead could differ from a fresh one."""

# ruff: noqa: E501 - programs are data
from __future__ import annotations

PYTHON = {
    "hello": "print('hello')",
    "argv": "import sys; print(sys.argv, sys.orig_argv[1:])",
    "names": "print(__name__, __file__, __package__, __spec__, __builtins__ is not None, sorted(globals()))",
    "path": "import sys; print(sys.path, sys.path[0])",
    "modules": "import sys; print(sorted(sys.modules))",
    "importers": "import sys; print(sorted(sys.path_importer_cache), len(sys.path_hooks), [type(each) for each in sys.meta_path])",
    "flags": "import sys; print(sys.flags, sys.warnoptions, sys._xoptions, sys.dont_write_bytecode)",
    "prefixes": "import sys; print(sys.prefix, sys.exec_prefix, sys.base_prefix, sys.executable, sys.platlibdir)",
    "environment": "import os; print(sorted(os.environ.items()))",
    "environment_of_children": "import subprocess; print(subprocess.run(['env'], capture_output=True, text=True).stdout)",
    "child_python": "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import sys; print(sys.path, sorted(sys.modules))'])",
    "working_directory": "import os; print(os.getcwd(), os.listdir('.'))",
    "places": "import os; print(sorted(os.listdir('/run')), os.listdir('/tmp'), os.listdir(os.environ['HOME']))",
    "descriptors": "import os; print(sorted(os.listdir('/proc/self/fd')), os.open('/dev/null', 0))",
    "process": "import os; print(os.getpid(), os.getppid(), os.getpgid(0) == os.getpid(), os.getsid(0) == os.getpid())",
    "children": "import os; print(open('/proc/1/task/1/children').read() if os.access('/proc/1/task/1/children', 4) else '')",
    "processes": "import os; print([name for name in os.listdir('/proc') if name.isdigit()])",
    "identity": "import os, pwd; print(os.getuid(), os.getgid(), os.getgroups(), pwd.getpwuid(os.getuid()))",
    "umask": "import os; print(oct(os.umask(0)))",
    "limits": "import resource as r; print({n: r.getrlimit(getattr(r, n)) for n in dir(r) if n.startswith('RLIMIT')})",
    "nice": "import os; print(os.nice(0), open('/proc/self/oom_score_adj').read())",
    "signals": "import signal; print({s.name: str(signal.getsignal(s)) for s in signal.valid_signals() if isinstance(s, signal.Signals)})",
    "signal_mask": "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.set_wakeup_fd(-1))",
    "status": "print([l for l in open('/proc/self/status') if l.split(':')[0] in ('SigBlk', 'SigIgn', 'Seccomp', 'NoNewPrivs', 'CapBnd')])",
    "command_line": "print(open('/proc/self/cmdline').read().split(chr(0))[:2])",
    "threads": "import threading; print(len(threading.enumerate()), threading.active_count(), threading.current_thread().name)",
    "threads_at_work": "from concurrent.futures import ThreadPoolExecutor as T\nwith T(4) as t: print(list(t.map(abs, range(-5, 5))))",
    "multiprocessing": "import multiprocessing as m\nif __name__ == '__main__':\n with m.Pool(2) as p: print(p.map(abs, [-1, 2]))",
    "spawned": "import multiprocessing as m\ndef f(q): q.put(__name__)\nif __name__ == '__main__':\n c = m.get_context('spawn'); q = c.Queue(); p = c.Process(target=f, args=(q,)); p.start(); print(q.get()); p.join()",
    "asyncio": "import asyncio\nasync def f():\n await asyncio.sleep(0); return 1\nprint(asyncio.run(f()))",
    "atexit": "import atexit; atexit.register(print, 'bye'); print('hi')",
    "traceback": "def f(): return 1 / 0\nf()",
    "traceback_in_import": "import other",
    "traceback_of_causes": "try:\n raise KeyError('a')\nexcept KeyError as e:\n raise ValueError('b') from e",
    "recursion": "import sys\nsys.setrecursionlimit(60)\ndef f(): f()\nf()",
    "recursion_depth": "import sys\ndef depth(f, n=0): return n if f is None else depth(f.f_back, n + 1)\nprint(depth(sys._getframe()), sys.getrecursionlimit())",
    "stack": "import traceback; traceback.print_stack(); print(len(traceback.extract_stack()))",
    "inspection": "import inspect; print([frame.filename for frame in inspect.stack()])",
    "syntax_error": "def f(:\n pass",
    "indentation_error": "if 1:\nprint(1)",
    "null_byte": "print(1)\0",
    "exit_code": "import sys; sys.exit(7)",
    "exit_words": "import sys; sys.exit('words')",
    "exit_at_once": "import os; print('lost'); os._exit(4)",
    "system_exit": "raise SystemExit",
    "abort": "import os; os.abort()",
    "killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "interrupted": "import os, signal; os.kill(os.getpid(), signal.SIGINT)",
    "pipe_closed": "import os, sys; os.close(1); sys.stdout.write('x')",
    "segmentation_fault": "import ctypes; ctypes.string_at(0)",
    "input": "print(input('? '), input())",
    "input_ends": "while True: print(input())",
    "input_bytes": "import sys; print(sys.stdin.buffer.read())",
    "input_lines": "import sys\nfor line in sys.stdin: print(repr(line))",
    "input_nothing_read": "print(1)",
    "streams": "import sys; print(sys.stdin, sys.stdout, sys.stderr, sys.stdout.line_buffering, sys.stdout.isatty())",
    "order": "import sys\nfor i in range(3): print(i); print(i, file=sys.stderr)",
    "unbuffered": "import os, sys; print('a', flush=True); os.write(1, b'b'); sys.stdout.write('c')",
    "encodings": "import sys, locale; print(sys.getdefaultencoding(), sys.getfilesystemencoding(), locale.getpreferredencoding(), 'ü€😀')",
    "surrogates": "print('\\udc80'.encode('utf-8', 'surrogateescape'))",
    "locale": "import locale; print(locale.setlocale(locale.LC_ALL, ''), locale.localeconv()['decimal_point'])",
    "time_zone": "import time; print(time.tzname, time.localtime(0))",
    "site": "import site; print(site.ENABLE_USER_SITE, site.getsitepackages(), site.PREFIXES)",
    "customizations": "import sys; print([m for m in sys.modules if 'custom' in m]); import usercustomize",
    "main_module": "import __main__, sys; print(__main__ is sys.modules['__main__'], sorted(vars(__main__)))",
    "import_self": "import main; print(main.__name__)" ,
    "sibling": "import other_module; print(other_module.VALUE, other_module.__file__)",
    "bytecode": "import json, os; print([p for p in os.walk('.')])",
    "garbage": "import gc; print(gc.isenabled(), gc.get_threshold(), gc.get_freeze_count())",
    "interning": "import sys; print(sys.intern('abc') is 'abc', sys.getrefcount(object()))",
    "audit": "import sys; print(sys.gettrace(), sys.getprofile(), sys.excepthook is sys.__excepthook__, sys.breakpointhook)",
    "hooks": "import sys; print(hasattr(sys, 'ps1'), sys.displayhook, sys.unraisablehook, hasattr(sys, 'last_type'))",
    "warnings": "import warnings; warnings.warn('careful'); print(warnings.filters)",
    "deprecated": "import imp" ,
    "builtins": "print(sorted(dir(__builtins__)), exit, quit, copyright)",
    "help": "print(help)",
    "decimal": "import decimal; print(decimal.getcontext())",
    "standard_library": "import json, re, sqlite3, ssl, hashlib, datetime, csv, zlib, xml.dom.minidom; print(json.dumps({'a': [1.5]}))",
    "big_output": "print('x' * 200_000)",
    "memory": "x = bytearray(50_000_000); print(len(x))",
    "file": "open('f', 'w').write('x'); print(open('f').read(), open(__file__).read())",
    "temporary": "import tempfile; print(tempfile.gettempdir())",
    "socket": "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[0]); print(socket.gethostname())",
    "trailing_comment": "print(1)  # no newline at the end",
    "coding": "# -*- coding: latin-1 -*-\nprint('\xe4')",
    "mark": "\ufeffprint('with a byte order mark')",
    "carriage_returns": "print(1)\r\nprint(2)\r\n",
    "empty": "",
    "endless_output": "while True: print('y' * 1000)",
    "exec": "import os, sys; os.execv(sys.executable, [sys.executable, '-c', 'print(1)'])",
    "fork": "import os\npid = os.fork()\nif pid == 0: os._exit(3)\nprint(os.waitpid(pid, 0)[1])",
    "at_fork": "import os; os.register_at_fork(before=lambda: print('before', flush=True), after_in_child=lambda: print('child', flush=True))\nif os.fork(): os.wait()",
    "seeded": "import random; random.seed(1); print(random.random(), random.gauss(0, 1)); print(random.Random(2).random())",
    "garbage_of_cycles": "import gc\nclass C:\n def __del__(self): print('gone')\nc = C(); c.c = c; del c; print(gc.collect() > 0)",
    "daemon": "import os\nif os.fork() == 0:\n os.setsid(); import time; time.sleep(100)\nprint('parent')",
    "ctypes": "import ctypes; print(ctypes.CDLL(None).getpid())",
    "faulthandler": "import faulthandler; print(faulthandler.is_enabled())",
    "tracing": "import sys\nsys.settrace(lambda *a: None)\nprint(sys.gettrace() is not None)",
    "doctest": "'''\n>>> 1 + 1\n2\n'''\nimport doctest; print(doctest.testmod())",
    "unittest": "import unittest\nclass T(unittest.TestCase):\n def test(self): self.assertTrue(True)\ns = unittest.defaultTestLoader.loadTestsFromTestCase(T)\nprint(unittest.TestResult().wasSuccessful(), s.countTestCases())",
    "runpy": "import runpy; print(sorted(runpy.run_path('other_module.py')))",
    "pickle": "import pickle\nclass C: pass\nprint(pickle.loads(pickle.dumps(C)) is C, C.__module__)",
    "weakref_at_exit": "import weakref\nclass C: pass\nc = C(); weakref.finalize(c, print, 'finalized')",
    "del_at_exit": "class C:\n def __del__(self): print('gone')\nc = C()",
}  # fmt: skip

NODE = {
    "hello": "console.log('hello')",
    "argv": "console.log(process.argv, process.argv0, process.execPath, process.execArgv, process.title)",
    "environment": "console.log(Object.entries(process.env).sort())",
    "module": "console.log(__filename, __dirname, require.main === module, module.paths, module.children, module.parent, module.id)",
    "cache": "console.log(Object.keys(require.cache), module.constructor._pathCache)",
    "globals": "console.log(Object.getOwnPropertyNames(globalThis).sort())",
    "process": "console.log(Object.keys(process).sort(), process.pid, process.ppid, process.cwd(), process._preload_modules)",
    "exception": "function f() { throw new Error('x') }\nf()",
    "rejection": "Promise.reject(new Error('x'))",
    "syntax_error": "let = ;",
    "exit": "process.exitCode = 7",
    "exit_at_once": "console.log(1); process.exit(3)",
    "events": "process.on('exit', code => console.log('bye', code)); console.log(process.eventNames())",
    "timers": "setTimeout(() => console.log(2), 1); setImmediate(() => console.log(1)); process.nextTick(() => console.log(0))",
    "input": "process.stdin.on('data', d => console.log(String(d))).on('end', () => console.log('end'))",
    "input_at_once": "console.log(require('fs').readFileSync(0, 'utf8'))",
    "children": "console.log(require('child_process').execSync('env | sort; ls /proc/self/fd | wc -l').toString())",
    "child_node": "console.log(require('child_process').execFileSync(process.execPath, ['-p', 'process.argv.length']).toString())",
    "fork": "if (process.send) process.send(process.argv.slice(2)); else require('child_process').fork(__filename, ['x']).on('message', m => console.log(m))",
    "worker": "const w = require('worker_threads'); if (w.isMainThread) new w.Worker(__filename).on('message', m => console.log(m)); else w.parentPort.postMessage(process.argv.length)",
    "descriptors": "console.log(require('fs').openSync('/dev/null'), require('fs').readdirSync('/proc/self/fd').length)",
    "places": "console.log(require('fs').readdirSync('/run').sort(), require('fs').readdirSync('.'))",
    "sibling": "console.log(require('./other_module.js'))",
    "import": "import('./other_module.js').then(m => console.log(m.default))",
    "modules": "console.log(require('module').builtinModules.length, require('crypto').createHash('sha256').update('x').digest('hex'))",
    "signals": "process.on('SIGUSR1', () => console.log('usr1')); process.kill(process.pid, 'SIGUSR1'); setTimeout(() => {}, 50)",
    "killed": "process.kill(process.pid, 'SIGKILL')",
    "stack": "console.log(new Error('x').stack.split('\\n').length, Error.stackTraceLimit)",
    "streams": "console.log(process.stdout.isTTY, process.stdout.constructor.name, process.stdin.constructor.name)",
    "strict": "'use strict'; try { undeclared = 1 } catch (e) { console.log(e.message) }",
    "this": "console.log(this === module.exports, typeof globalThis.require)",
    "locale": "console.log(new Intl.DateTimeFormat().resolvedOptions().timeZone, (1234.5).toLocaleString())",
    "big_output": "console.log('x'.repeat(200000))",
    "reports": "console.log(process.allowedNodeEnvironmentFlags.size, process.features, process.config.variables.napi_build_version)",
}  # fmt: skip

PERL = {
    "hello": "print qq(hello\\n);",
    "argv": "print join('|', @ARGV, $0, __FILE__), qq(\\n);",
    "environment": "print map { qq($_=$ENV{$_}\\n) } sort keys %ENV;",
    "places": "print join('|', @INC), qq(\\n), join('|', sort keys %INC), qq(\\n);",
    "die": "sub f { die 'x' } f();",
    "warn": "use warnings; my $x; print $x . 1;",
    "syntax_error": "my $x = ;",
    "exit": "exit 5;",
    "strict": "use strict; $x = 1;",
    "input": "while (<STDIN>) { print qq(<$_>) }",
    "diamond": "@ARGV = (); while (<>) { chomp; print qq([$_]) }",
    "data": "print <DATA>;\n__DATA__\nsome data\n",
    "end": "print 1;\nEND { print 'end' }\n__END__\nrest",
    "begin": "BEGIN { print 'begin' } print 'main';",
    "descriptors": "opendir D, '/proc/self/fd'; print join(' ', sort grep { !/^[.]/ } readdir D), qq(\\n); open my $f, '<', '/dev/null'; print fileno $f;",
    "children": "print `env | sort`; print `perl -e 'print \\@INC'`;",
    "process": "print qq($$ ), getppid(), qq( $^X $^O $;\\n);",
    "variables": "print defined $@ ? qq([$@]) : 'u', $! + 0, qq($/|), defined $\\ ? 1 : 0, defined $, ? 1 : 0, $|;",
    "line": "print __LINE__, ' ', (caller(0))[3] // 'none';",
    "carp": "use Carp; sub f { Carp::cluck('x') } f();",
    "fork": "my $p = fork; if (!$p) { exit 3 } waitpid $p, 0; print $? >> 8;",
    "killed": "kill 'TERM', $$; sleep 5;",
    "modules": "use POSIX; use List::Util 'sum'; use Data::Dumper; print sum(1, 2), floor(1.5), Dumper([1]);",
    "unicode": "use utf8; binmode STDOUT, ':utf8'; print 'ü€';",
    "places_of_files": "opendir D, '/run'; print join(' ', sort grep { !/^[.]/ } readdir D);",
    "eval": "eval 'die qq(in eval)'; print $@;",
    "big_output": "print 'x' x 200000;",
    "empty": "",
}  # fmt: skip

BASH = {
    "hello": "echo hello",
    "parameters": 'echo "$0" "$#" "$@" "${BASH_SOURCE[@]}"',
    "environment": "env | sort",
    "variables": "declare -p | grep -vE 'BASHPID|BASH_ARGC|EPOCH|RANDOM|SRANDOM|SECONDS|PPID|BASH_VERSINFO|_=|PIPESTATUS' | sort",
    "functions": "declare -F; alias; trap; jobs; hash",
    "options": "echo $- ; shopt | sort; set -o | sort",
    "exit": "exit 9",
    "last_status": "echo $?",
    "errors": "nosuchcommand; echo $?",
    "syntax_error": "if then",
    "unset": "set -u; echo $UNSET",
    "set_e": "set -e; false; echo no",
    "input": "while read -r line; do echo \"<$line>\"; done",
    "input_all": "cat",
    "descriptors": "ls /proc/self/fd; ls /proc/$$/fd; exec {new}>/dev/null; echo $new",
    "children": "bash -c 'env | sort; echo $0'",
    "processes": "echo $$ $PPID $BASHPID; set -- /proc/[0-9]*; echo $#",
    "places": "ls -la /run /tmp | grep -v total | awk '{print $1, $3, $9}'; pwd",
    "trap": "trap 'echo bye' EXIT; kill -TERM $$; sleep 5",
    "killed": "kill -9 $$",
    "here_document": "cat <<X\n$((6 * 7))\nX",
    "pipes": "seq 3 | sort -r | tr '\\n' ' '; echo \"${PIPESTATUS[@]}\"",
    "background": "sleep 0.01 & wait; echo $?",
    "arrays": "a=(1 2 3); echo ${#a[@]} ${a[-1]}; declare -A m=([k]=v); echo ${m[k]}",
    "line": 'echo $LINENO; f() { echo ${FUNCNAME[@]} ${BASH_LINENO[@]}; }; f',
    "limits": "ulimit -a",
    "umask": "umask",
    "interactive": "case $- in *i*) echo yes ;; *) echo no ;; esac; echo $SHLVL $BASH_SUBSHELL",
    "read_only": "readonly | sort | grep -v VERSINFO | grep -v PPID",
    "empty": "",
}  # fmt: skip

RUBY = {
    "hello": "puts 'hello'",
    "argv": "p ARGV, ARGV.map(&:encoding), ARGV.map(&:frozen?), ARGV.frozen?, ARGF.argv",
    "names": "p $0, $PROGRAM_NAME, __FILE__, __dir__, __LINE__, __method__, __ENCODING__, self, binding.local_variables",
    "variables": "p global_variables.sort, $!, $@, $_, $., $~, $;, $,, $/, $\\, $-w, $-v, $-d, $DEBUG, $FILENAME, $stdin.lineno",
    "environment": "p ENV.to_a, ENV['RUBYOPT'], ENV['RUBYLIB']",
    "features": "p $LOADED_FEATURES, $LOADED_FEATURES.map(&:frozen?).uniq",
    "places": "p $LOAD_PATH, Gem.path, Gem.dir, Gem.ruby, RbConfig.ruby",
    "gems": "p Gem.loaded_specs.keys, Gem::Specification.class_variables.sort, Gem.instance_variables.sort, Gem::Specification.unresolved_deps",
    "gem_state": "p Gem::Specification.class_variables.map { |name| Gem::Specification.class_variable_get(name).inspect.size }",
    "constants": "p Object.constants.sort, Kernel.private_instance_methods.sort, Object.private_instance_methods(false).sort",
    "symbols": "puts Symbol.all_symbols.map(&:to_s).sort",
    "methods": "p File.instance_methods(false).sort, IO.instance_methods(false).sort, IO.instance_method(:set_encoding)",
    "data": "p DATA.lineno, DATA.pos, DATA.path, DATA.external_encoding, DATA.fileno, DATA.singleton_methods, DATA.read; DATA.rewind; print DATA.read\n__END__\nsome ü data\nmore\n",
    "data_lines": "DATA.each_line { |line| p [$., line] }\n__END__\none\n\ntwo",
    "data_method": "p DATA.method(:set_encoding).owner, DATA.set_encoding('BINARY').external_encoding, DATA.class\n__END__\n",
    "end_without_data": "p defined?(DATA)",
    "first_line": "#!/usr/bin/env ruby\np __LINE__, DATA.lineno, $., DATA.pos\nraise 'x'\n__END__\n",
    "first_line_options": "#!/usr/bin/ruby -w\nunused = 1; p $VERBOSE, @unset, ARGV, $0, ENV.keys; def f(unused) = 1\nputs File.read('/proc/self/comm')",
    "first_line_switches": "#!/usr/bin/env ruby -s\np $x, ARGV",
    "first_line_not_ruby": "#!/bin/sh\necho no\n#!ruby\np __LINE__, ARGV\n",
    "first_line_never_ruby": "#!/bin/sh\necho no\n",
    "first_line_return": "#!/usr/bin/ruby\r\np 1\r\n",
    "comment_first": "# frozen_string_literal: true\np 'a'.frozen?",
    "coding": "# -*- coding: latin-1 -*-\np __ENCODING__, 'ü'.bytes",
    "mark": "\ufeffp __ENCODING__, 'with a byte order mark'",
    "carriage_returns": "p 1\r\np 2\r\n",
    "null_byte": "p 1\0p 2",
    "long": "# " + "x" * 20_000 + "\np __LINE__\n" + "p 1\n" * 3000 + "__END__\nrest",
    "encodings": "p Encoding.default_external, Encoding.default_internal, Encoding.find('locale'), Encoding.find('filesystem'), 'ü€😀'",
    "traceback": "def f = 1 / 0\ndef g = f\ng",
    "full_message": "begin; raise 'x'; rescue => error; puts error.full_message(highlight: false), error.backtrace_locations.map(&:absolute_path); end",
    "causes": "begin; raise 'a'; rescue; raise TypeError, 'b'; end",
    "stack": "p caller, caller(0), caller_locations(0).map(&:path)\nbegin; raise 'x'; rescue => e; p e.backtrace; end",
    "recursion": "def depth(n) = depth(n + 1)\nbegin; depth(0); rescue SystemStackError => e; p e.message; end",
    "syntax_error": "def f(\n  1 +\nend",
    "suggestion": "begin; 'a'.lenght; rescue NoMethodError => e; puts e.message; end\n1.tims {}",
    "highlight": "nil.foo.bar",
    "not_found": "require 'no_such_thing'",
    "not_found_path": "begin; require 'no_such_thing'; rescue LoadError => e; p e.path, e.message; end\nbegin; require '/.ahead/x'; rescue LoadError => e; p e.path; end",
    "warn": "warn 'careful'; p $VERBOSE, Warning[:deprecated], Warning[:experimental]",
    "verbose": "$VERBOSE = true\nA = 1\nA = 2\ndef f = 1\ndef f = 2",
    "exit": "exit 5",
    "exit_at_once": "at_exit { puts 'lost' }; exit! 4",
    "abort": "abort 'words'",
    "at_exit": "at_exit { puts 'first' }; at_exit { puts 'second'; exit 3 }; puts 'main'",
    "end": "END { puts 'end' }\nBEGIN { puts 'begin' }\nputs 'main'",
    "killed": "Process.kill(:KILL, $$); sleep 5",
    "interrupted": "Process.kill(:INT, $$); sleep 5",
    "terminated": "Process.kill(:TERM, $$); sleep 5",
    "signals": "p Signal.list.keys.reject { |n| %w[EXIT KILL STOP VTALRM SEGV BUS ILL FPE].include?(n) }.to_h { |n| [n, (trap(n, 'DEFAULT') rescue $!.message)] }",
    "trap": "trap('USR1') { puts 'usr1' }; Process.kill(:USR1, $$); sleep 0.05",
    "status": "puts File.readlines('/proc/self/status').grep(/^(SigBlk|SigIgn|SigCgt|Seccomp|NoNewPrivs|CapBnd|Threads)/)",
    "input": "while line = gets; p [$., line]; end",
    "input_all": "ARGV.clear; p $<.read, ARGF.lineno",
    "input_of_stdin": "p $stdin.gets, $stdin.read, $stdin.eof?, $stdin.external_encoding, $stdin.tty?",
    "input_nothing_read": "puts 1",
    "streams": "p $stdin, $stdout, $stderr, $stdout.sync, $stderr.sync, $stdout.external_encoding, STDIN.fileno, $stdin.binmode?",
    "order": "3.times { |i| puts i; warn i; system(\"echo #{i}\") }",
    "descriptors": "p Dir.children('/proc/self/fd').sort, File.open('/dev/null').fileno, IO.pipe.map(&:fileno)",
    "files_open": "p ObjectSpace.each_object(IO).reject(&:closed?).map(&:fileno).sort",
    "places_of_files": "p Dir.children('/run').sort, Dir.children('/tmp'), Dir.children('.').sort, Dir.pwd, Dir.home",
    "process": "p $$, Process.ppid, Process.getpgrp == $$, Process.getsid == $$, Process.uid, Process.euid, File.umask, Process.getpriority(0, 0)",
    "command_line": "p File.read('/proc/self/cmdline').split(\"\\0\")[0..1], File.read('/proc/self/comm'), Process.argv0",
    "limits": "p %i[NOFILE FSIZE NPROC CORE STACK AS CPU].map { |name| Process.getrlimit(name) }",
    "children": "puts `env | sort`, `ls /proc/self/fd | wc -l`; p $?.exitstatus",
    "child_ruby": "puts IO.popen([RbConfig.ruby, '-e', 'p $LOADED_FEATURES.size, $LOAD_PATH, ARGV, ENV.keys.sort', 'x']).read",
    "exec": "exec RbConfig.ruby, '-e', 'p $0, ARGV', 'x'",
    "fork": "pid = fork { exit! 3 }; Process.wait(pid); p $?.exitstatus",
    "threads": "p Thread.list.size, Thread.main == Thread.current, Thread.current.name, Thread.current.keys, 4.times.map { |i| Thread.new { i * 2 } }.map(&:value)",
    "fibers": "p Fiber.new { Fiber.yield 1; 2 }.then { |f| [f.resume, f.resume] }, Enumerator.new { |y| y << 1 }.next",
    "ractor": "p Ractor.count, Ractor.new { 1 + 2 }.take",
    "object_ids": "p Object.new.object_id, 'x'.object_id, nil.object_id",
    "garbage": "p GC.enable, GC.stress, GC.disable, GC.enable",
    "tracing": "lines = []; TracePoint.new(:line, :c_call) { |t| lines << [t.event, t.lineno] }.enable { [1].first\n1 + 1 }; p lines, TracePoint.stat.size",
    "random": "srand 1; p rand(100), Random.new(5).rand(100), [1, 2, 3].shuffle(random: Random.new(1))",
    "clock": "p Process.clock_gettime(Process::CLOCK_MONOTONIC).class, Time.at(0).to_s, Time.now.zone",
    "require_relative": "require_relative 'other_module'; p VALUE, $LOADED_FEATURES.last, $0 == __FILE__",
    "load": "load './other_module.rb'; unless $again then $again = true; load 'main.rb' end; p VALUE, __FILE__, caller",
    "traceback_in_require": "require_relative 'other'",
    "standard_library": "require 'json'; require 'set'; require 'date'; require 'digest'; require 'time'; require 'bigdecimal'; p JSON.generate(a: [1.5]), Set[1], Date.new(2020), Digest::SHA256.hexdigest('x'), $LOADED_FEATURES.size, Gem.loaded_specs.keys",
    "monitor": "p require('monitor'), require('rubygems'), require('did_you_mean'), Gem.loaded_specs.keys",
    "program_name": "require 'optparse'; p OptionParser.new.program_name",
    "evaluated": "p eval('__FILE__'), eval('[__LINE__, binding.local_variables]'), TOPLEVEL_BINDING.local_variables, TOPLEVEL_BINDING.source_location",
    "script_lines": "p defined?(SCRIPT_LINES__), RubyVM::InstructionSequence.of(-> {}).path, (-> {}).source_location, RubyVM::InstructionSequence.compile_option",
    "refinements": "module M; refine(Integer) { def twice = self * 2 }; end\nusing M\np 4.twice",
    "file": "p __FILE__, File.size(__FILE__), File.read($0).size, File.stat(__FILE__).mode.to_s(8)",
    "itself_changed": "File.write(__FILE__, 'p :changed'); load __FILE__",
    "big_output": "puts 'x' * 200_000",
    "pipe_closed": "$stdout.close; puts 1",
    "empty": "",
    "newline": "\n",
    "comment": "# nothing",
}  # fmt: skip

PHP = {
    "hello": "<?php echo 'hello';",
    "names": "<?php var_dump(get_included_files(), __FILE__, __DIR__, $argv, $argc, $_SERVER['SCRIPT_NAME'], $_SERVER['PATH_TRANSLATED'], getcwd());",
    "settings": "<?php var_dump(ini_get_all(null, false), php_ini_loaded_file(), php_ini_scanned_files(), php_sapi_name(), PHP_BINARY);",
    "environment": "<?php $s = $_SERVER; unset($s['REQUEST_TIME'], $s['REQUEST_TIME_FLOAT']); var_dump(getenv(), $s, $_ENV);",
    "descriptors": "<?php foreach (scandir('/proc/self/fd') as $f) echo $f, ' '; var_dump(get_resources(), (int) fopen('/dev/null', 'r'));",
    "file": "<?php var_dump(getmyinode() == fileinode(__FILE__), filesize(__FILE__), getlastmod() == filemtime(__FILE__), decoct(fileperms(__FILE__)));",
    "memory": "<?php var_dump(memory_get_usage(), memory_get_peak_usage(), gc_status()['runs'], spl_object_id(new stdClass));",
    "halt": "<?php $f = fopen(__FILE__, 'r'); fseek($f, __COMPILER_HALT_OFFSET__); var_dump(stream_get_contents($f), ftell($f)); __halt_compiler();data here",
    "first_line": "#!/usr/bin/env php\n<?php echo __LINE__; throw new Exception('x');",
    "html": "plain text\n<?= 1 ?>\nmore\n",
    "mark": "\ufeff<?php echo 1;",
    "strict": "<?php declare(strict_types=1); strlen(5);",
    "syntax_error": "<?php echo 1 +;",
    "long": "<?php\n" + "// a line\n" * 5000 + "echo __LINE__;",
    "big": "<?php $s = '" + "y" * 60_000 + "'; echo strlen($s);",
    "error": "<?php function f() { nope(); } f();",
    "warning": "<?php echo $undefined; echo 1 / 2; trigger_error('careful', E_USER_DEPRECATED);",
    "exit": "<?php exit(5);",
    "exit_words": "<?php exit('words');",
    "shutdown": "<?php register_shutdown_function(function () { echo 'last'; exit(3); }); echo 'first';",
    "destructor": "<?php class C { function __destruct() { echo 'gone'; } } $c = new C;",
    "include_itself": "<?php if (!isset($x)) { $x = 1; include __FILE__; var_dump(require_once __FILE__); } echo 'in'; var_dump(get_included_files());",
    "buffers": "<?php var_dump(ob_get_level(), headers_sent(), headers_list(), error_get_last()); ob_start(); echo 'a'; echo strrev(ob_get_clean());",
    "streams": "<?php var_dump(STDIN, STDOUT, STDERR, stream_get_meta_data(STDIN), posix_isatty(STDOUT));",
    "input": "<?php while (($line = fgets(STDIN)) !== false) var_dump($line); var_dump(feof(STDIN));",
    "input_all": "<?php var_dump(file_get_contents('php://stdin'), file_get_contents('php://input'));",
    "order": "<?php for ($i = 0; $i < 3; $i++) { echo $i; fwrite(STDERR, \"e$i\\n\"); system(\"echo s$i\"); }",
    "time": "<?php var_dump(microtime(true) - $_SERVER['REQUEST_TIME_FLOAT'] < 0.1, date_default_timezone_get());",
    "process": "<?php var_dump(getmypid(), posix_getppid(), getmyuid(), get_current_user(), umask(), pcntl_getpriority());",
    "status": "<?php echo join(preg_grep('/^(SigBlk|SigIgn|SigCgt|Seccomp|NoNewPrivs|CapBnd|Threads)/', file('/proc/self/status')));",
    "limits": "<?php var_dump(posix_getrlimit());",
    "signal": "<?php posix_kill(getmypid(), 15); sleep(5);",
    "children": "<?php passthru('env | sort; ls /proc/self/fd | wc -l'); var_dump(proc_close(proc_open(['true'], [], $pipes)));",
    "fork": "<?php $pid = pcntl_fork(); if (!$pid) exit(3); pcntl_waitpid($pid, $status); var_dump(pcntl_wexitstatus($status));",
    "functions": "<?php var_dump(get_defined_functions()['user'], array_slice(get_declared_classes(), -3), array_keys(get_defined_vars()), get_loaded_extensions());",
    "constants": "<?php var_dump(count(get_defined_constants()), get_defined_constants(true)['user'] ?? null);",
    "random": "<?php mt_srand(5); var_dump(mt_rand(0, 100), random_int(0, 9) < 10);",
    "places": "<?php foreach (['/tmp', '/run', '.', '/dev/shm'] as $place) var_dump(scandir($place));",
    "changed": "<?php file_put_contents(__FILE__, '<?php echo \"changed\";'); include __FILE__; unlink(__FILE__);",
    "highlight": "<?php highlight_file(__FILE__); echo php_strip_whitespace(__FILE__);",
    "recursion": "<?php function f($n) { return $n ? f($n - 1) + 1 : 0; } var_dump(f(20000));",
    "big_output": "<?php echo str_repeat('x', 200000);",
    "empty": "",
}  # fmt: skip

LUA = {
    "hello": "print('hello')",
    "names": "print(arg[0], #arg, select('#', ...), debug.getinfo(1).source, debug.getinfo(1).short_src, ...)",
    "first_line": "#!/usr/bin/lua\nprint(debug.getinfo(1).currentline, debug.traceback())",
    "globals": "local names = {} for name in pairs(_G) do names[#names + 1] = name end table.sort(names) print(table.concat(names, ' '))",
    "packages": "local names = {} for name in pairs(package.loaded) do names[#names + 1] = name end table.sort(names) print(table.concat(names, ' '), package.path)",
    "environment": "print(os.getenv('HOME'), os.getenv('LUA_INIT'), os.getenv('PATH')) os.execute('env | sort')",
    "descriptors": "local file = io.open('/proc/self/stat') local pid = file:read('n') file:close() os.execute('ls /proc/' .. pid .. '/fd')",
    "memory": "collectgarbage() print(collectgarbage('count') < 40)",
    "error": "error('x')",
    "error_table": "error({})",
    "traceback": "local function f() error('inside') end\nlocal function g() f() end\ng()",
    "syntax_error": "x = = 1",
    "unfinished": "print('x",
    "exit": "os.exit(5)",
    "exit_false": "os.exit(false)",
    "close_on_exit": "setmetatable({}, {__gc = function() print('gone') end}) os.exit(3, true)",
    "collected_at_end": "x = setmetatable({}, {__gc = function() print('gone') end})",
    "input": "for line in io.lines() do print(line) end print(io.read())",
    "input_all": "print(#io.read('a'))",
    "order": "for i = 1, 3 do io.write(i, '\\n') io.stderr:write('e', i, '\\n') io.flush() os.execute('echo s' .. i) end",
    "coroutine": "print(coroutine.wrap(function(a) return coroutine.yield(a + 1) end)(1), select(2, coroutine.running()))",
    "compiled": "print(#string.dump(function() return 1 end), load('return 1 + 1')())",
    "itself": "print(#io.open(arg[0]):read('a')) if not again then again = true dofile(arg[0]) end",
    "status": "for line in io.lines('/proc/self/status') do if line:match('^Sig') or line:match('^Seccomp') then print(line) end end",
    "limits": "for line in io.lines('/proc/self/limits') do if not line:match('cpu') then print(line) end end",
    "long": "-- a line\n" * 5000 + "print(debug.getinfo(1).currentline)",
    "mark": "\ufeffprint(1)",
    "killed": "os.execute('kill -9 $PPID')",
    "big_output": "io.write(('x'):rep(200000))",
    "empty": "",
}  # fmt: skip

LEAVING = {
    "php": """<?php
$mark = 1; define('MARK', 1); function mark() {} putenv('MARK=1'); ini_set('precision', 3); mt_srand(1); set_error_handler('mark');
foreach (['/tmp/mark', '/dev/shm/mark', '/run/mark', getenv('HOME') . '/mark', 'mark'] as $place) file_put_contents($place, '');
chdir('/tmp'); umask(0777); proc_nice(5); pcntl_signal(SIGTERM, SIG_IGN); $GLOBALS['kept'] = fopen('/tmp/mark', 'r');
?>""",
    "lua": """
mark = 1; package.loaded.mark = 1; string.mark = 1; math.randomseed(1); os.setlocale('C')
for _, place in ipairs({'/tmp/mark', '/dev/shm/mark', '/run/mark', os.getenv('HOME') .. '/mark', 'mark'}) do io.open(place, 'w') end
os.execute('setsid sleep 60 > /dev/null 2>&1 &')
""",
    "python": """
import builtins, os, random, resource, signal, sys
builtins.mark = sys.mark = os.mark = 1
os.environ["MARK"] = "1"
for place in ("/tmp/mark", "/dev/shm/mark", "/run/mark", os.path.expanduser("~/mark"), "mark"): open(place, "w").close()
os.chdir("/tmp"); os.umask(0o777); os.nice(5); os.dup2(1, 99); random.seed(1)
signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGINT])
resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20)); resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
if os.fork() == 0:
    os.setsid(); signal.pause()
""",
    "node": """
const fs = require("fs"), os = require("os"), { spawn } = require("child_process");
globalThis.mark = Object.prototype.mark = 1; process.env.MARK = "1";
for (const place of ["/tmp/mark", "/dev/shm/mark", "/run/mark", os.homedir() + "/mark", "mark"]) fs.writeFileSync(place, "");
fs.openSync("/tmp/mark"); process.chdir("/tmp"); process.umask(0o777); process.title = "mark"; os.setPriority(5);
spawn("sleep", ["60"], { detached: true, stdio: "ignore" }).unref();
""",
    "perl": """
our $mark = 1; $ENV{MARK} = 1; $SIG{TERM} = "IGNORE"; srand 1;
for ("/tmp/mark", "/dev/shm/mark", "/run/mark", "$ENV{HOME}/mark", "mark") { open my $file, ">", $_; }
open KEPT, "<", "/tmp/mark"; chdir "/tmp"; umask 0777; setpriority 0, 0, 5; $0 = "mark";
unless (fork) { sleep 60 }
""",
    "bash": """
mark=1; export MARK=1; RANDOM=1; trap '' TERM; f() { :; }; export -f f; alias ls=false; set -u; hash -p /bin/false sleep
for place in /tmp/mark /dev/shm/mark /run/mark ~/mark mark; do : > $place; done
exec 77>&1; ulimit -n 20; renice -n 5 $$ > /dev/null; umask 777; cd /tmp; setsid sleep 60 &
""",
    "ruby": """
$mark = 1; MARK = 1; class Object; def mark = 1; end; ENV["MARK"] = "1"; trap("TERM", "IGNORE"); srand 1
["/tmp/mark", "/dev/shm/mark", "/run/mark", File.join(Dir.home, "mark"), "mark"].each { |place| File.write(place, "") }
KEPT = File.open("/tmp/mark"); Dir.chdir("/tmp"); File.umask(0o777); Process.setpriority(0, 0, 5); $0 = "mark"; $LOAD_PATH << "/tmp/mark"
Process.setrlimit(:NOFILE, 20); Gem.loaded_specs["mark"] = 1; fork { Process.setsid; sleep 60 }
""",
}
"""Programs that leave behind whatever a program can."""

LOOKING = {
    "php": """<?php
var_dump($mark ?? 0, defined('MARK'), function_exists('mark'), getenv('MARK'), ini_get('precision'), getcwd(), umask(), pcntl_getpriority());
foreach (['/tmp', '/dev/shm', '/run', getenv('HOME'), '.', '/proc/self/fd'] as $place) echo join(' ', scandir($place)), PHP_EOL;
echo count(preg_grep('/^[0-9]+$/', scandir('/proc'))), pcntl_signal_get_handler(SIGTERM), count(get_resources());
?>""",
    "lua": """
print(mark, package.loaded.mark, string.mark)
os.execute('ls /tmp /dev/shm /run ~ . /proc/self/fd; set -- /proc/[0-9]*; echo $#')
""",
    "python": """
import builtins, os, resource, signal, sys
print(hasattr(builtins, "mark"), hasattr(sys, "mark"), hasattr(os, "mark"), sorted(os.environ), os.getcwd(), oct(os.umask(0)), os.nice(0))
print([sorted(os.listdir(place)) for place in ("/tmp", "/dev/shm", "/run", os.path.expanduser("~"), ".")])
print(signal.getsignal(signal.SIGTERM), signal.pthread_sigmask(signal.SIG_BLOCK, []), sorted(map(int, os.listdir("/proc/self/fd"))))
print(resource.getrlimit(resource.RLIMIT_NOFILE), [name for name in os.listdir("/proc") if name.isdigit()], open("/proc/self/comm").read())
""",
    "node": """{
const fs = require("fs"), os = require("os");
console.log(globalThis.mark, {}.mark, Object.keys(process.env).sort(), process.cwd(), process.umask(), process.title, os.getPriority());
console.log(["/tmp", "/dev/shm", "/run", os.homedir(), "."].map((place) => fs.readdirSync(place).sort()));
console.log(fs.readdirSync("/proc").filter((name) => /^[0-9]+$/.test(name)).length, process.listenerCount("SIGTERM"));
}""",
    "perl": """
print defined $main::mark, join(",", sort keys %ENV), " ", umask, getpriority(0, 0), $SIG{TERM} // "default", " $0\n";
for ("/tmp", "/dev/shm", "/run", $ENV{HOME}, ".", "/proc/self/fd") { opendir my $folder, $_; print join(" ", sort readdir $folder), "\n"; }
""",
    "bash": """
echo "${mark-} ${MARK-} $- $SHLVL $PWD $(umask) $(ulimit -n)"; trap; alias; declare -F; hash; nice; type -p sleep
set -- /tmp/* /dev/shm/* /run/* ~/* ./*; echo "$@"; set -- /proc/[0-9]*; echo $#; set -- /proc/self/fd/*; echo $#; compgen -e
""",
    "ruby": """
p $mark, defined?(MARK), respond_to?(:mark), ENV.keys.sort, File.umask, Process.getpriority(0, 0), $0, Dir.pwd, $LOAD_PATH, Gem.loaded_specs.keys
["/tmp", "/dev/shm", "/run", Dir.home, ".", "/proc/self/fd"].each { |place| p Dir.children(place).sort }
p Process.getrlimit(:NOFILE), Dir.children("/proc").grep(/^[0-9]+$/).size, File.read("/proc/self/comm"), trap("TERM", "DEFAULT")
""",
}
"""Programs that look for all of that."""
