module main;
  initial $display("OK");
endmodule
