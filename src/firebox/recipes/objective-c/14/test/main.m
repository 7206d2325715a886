#import <Foundation/Foundation.h>

int main(void)
{
  NSAutoreleasePool *pool = [NSAutoreleasePool new];
  printf("%s\n", [[@"ok" uppercaseString] UTF8String]);
  [pool drain];
  return 0;
}
