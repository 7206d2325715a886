const std = @import("std");

pub fn main(init: std.process.Init) !void {
    var letters: [2]u8 = undefined;
    _ = std.ascii.upperString(&letters, "ok");
    try std.Io.File.stdout().writeStreamingAll(init.io, &letters);
    try std.Io.File.stdout().writeStreamingAll(init.io, "\n");
}
