builtins.concatStringsSep "" [ "O" "K" ]
