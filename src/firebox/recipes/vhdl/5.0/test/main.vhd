use std.textio.all;

entity main is end;

architecture test of main is
begin
  process
    variable text: line;
  begin
    write(text, string'("OK"));
    writeline(output, text);
    wait;
  end process;
end;
