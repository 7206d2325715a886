words=(O K); printf %s "${words[@]}"; echo
