import sys, time, json, itertools
import torch, weft
from triton.testing import do_bench
from weft.codegen.configure import Config
from weft.codegen.launch import kernel_for, run, upload
from weft.codegen.tables import tile_lists
torch.manual_seed(0)
dev="cuda"; H,D=16,128
print(torch.cuda.get_device_name(), torch.__version__)
def pairs(kind,N,W):
    if kind=="causal": return N*(N+1)/2
    if kind=="full": return N*N
    return W*(W+1)/2+(N-W)*W
from torch.nn.attention.flex_attention import flex_attention, create_block_mask
cfgs=[]
for bm,bn,w,st in ((128,128,8,2),(128,64,8,2),(128,64,8,3),(64,64,4,3),(64,128,4,2),(64,128,4,3)):
    for ahead in (True,False):
        cfgs.append(Config(bm,bn,w,st,True,ahead))
cfgs.append(Config(128,64,4,3,False,False))
for N in (8192,32768):
    q,k,v=(torch.randn(1,H,N,D,device=dev,dtype=torch.bfloat16) for _ in range(3))
    for kind,W in (("causal",0),("window",1024),("window",4096)):
        p=weft.load("pattern p(w: int=1) { causal keep q-k<w or w==0 }", w=W)
        work=4*H*D*pairs(kind,N,W)
        rows=[]
        import torch._dynamo; torch._dynamo.reset()
        f=torch.compile(flex_attention)
        mm=(lambda b,h,qi,ki: qi>=ki) if W==0 else (lambda b,h,qi,ki: (qi>=ki)&(qi-ki<W))
        bmask=create_block_mask(mm,None,None,N,N,device=dev)
        ref=f(q,k,v,block_mask=bmask); tflex=do_bench(lambda: f(q,k,v,block_mask=bmask),warmup=20,rep=80,return_mode="median")
        for c in cfgs:
            for side in (1,4,16):
                if side>1 and c!=cfgs[0] and c!=cfgs[2]: continue
                import dataclasses
                c2=dataclasses.replace(c,side_by_side=side)
                try:
                    kr=kernel_for(p.bind(H,H),p.shape(N,N,H,H),"bf16",D,N,90,c.tma,config=c2)
                    o,l=run(kr,q,k,v,D**-0.5,None,{})
                    err=((o.float()-ref.float()).norm()/ref.float().norm()).item()
                    ms=do_bench(lambda: run(kr,q,k,v,D**-0.5,None,{}),warmup=10,rep=50,return_mode="median")
                    rows.append((ms,(c.block_m,c.block_n,c.warps,c.stages,"tma" if c.tma else "ptr","ahead" if c.ahead else "plain",side),err))
                except Exception as e:
                    rows.append((1e9,(c2.block_m,c2.block_n,c2.warps,c2.stages,c2.ahead,side),str(e)[:150]))
        rows.sort(key=lambda r:r[0])
        print(N,kind,W,"flex %.0f TF"%(work/tflex/1e9),flush=True)
        for r in rows: print("    %.0f TF ratio %.2f %s err %s"%(work/r[0]/1e9,tflex/r[0],r[1],r[2]),flush=True)
