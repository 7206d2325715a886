program Main;
{$mode objfpc}{$H+}
uses
  Classes, Math, SysUtils, fgl, fpjson;
begin
  if Max(1, 2) = 2 then
    WriteLn(UpperCase('ok'));
end.
