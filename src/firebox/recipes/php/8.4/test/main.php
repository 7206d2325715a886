<?php
if (mb_strlen("ü") === 1 && bcadd("1", "2") === "3" && gmp_intval(gmp_add(1, 2)) === 3 && json_decode("[1]") === [1]) {
    echo "OK\n";
}
